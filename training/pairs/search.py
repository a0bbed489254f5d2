"""The list that an evaluator would build: greedy search, one item after the other.

What an item earns depends on the items before it only, so each step scores every free candidate
as the next item, at the cost of one token a candidate: keys and values of the list so far are kept.

Axes: B requests, M candidates, N list positions, K items so far, C categorical columns, D width,
A attention heads.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.data.arrays import SlateArrays
from training.data.batch import Batch
from training.model.layers import BLOCKED, EncoderLayer
from training.pairs.evaluator import Evaluator, window_shares


@torch.no_grad()
def search_lists(evaluator: Evaluator, batch: Batch, list_size: int) -> Tensor:
    """Greedy lists int64 [B, n] by the evaluator, -1 once all candidates are in."""
    own_BMD = evaluator.items(batch)
    size, candidates = own_BMD.shape[:2]
    rows = torch.arange(size, device=own_BMD.device)
    place = torch.arange(candidates, device=own_BMD.device)
    taken_BM = place >= batch.count.unsqueeze(1)
    caches: list[tuple[Tensor, Tensor]] = []
    lists = torch.full([size, list_size], -1, dtype=torch.long, device=own_BMD.device)
    for step in range(min(list_size, candidates)):
        repeats = _repeats(batch.item_cat, lists[:, :step])
        x_BMD = evaluator.enter(own_BMD, torch.tensor([step], device=own_BMD.device), repeats)
        grown: list[tuple[Tensor, Tensor]] = []
        for index, layer in enumerate(evaluator.layers):
            cache = caches[index] if caches else None
            x_BMD, key, value = _next_token(layer, x_BMD, cache)  # type: ignore[arg-type]
            grown.append((key, value))
        score = evaluator.leave(own_BMD, x_BMD, torch.tensor([step], device=own_BMD.device))
        best = score.masked_fill(taken_BM, BLOCKED).argmax(1)
        free = ~taken_BM[rows, best]
        lists[:, step] = torch.where(free, best, -1)
        taken_BM[rows, best] = True
        chosen = [(key[rows, :, best], value[rows, :, best]) for key, value in grown]
        caches = [
            (
                torch.cat([*([caches[i][0]] if caches else []), key.unsqueeze(2)], dim=2),
                torch.cat([*([caches[i][1]] if caches else []), value.unsqueeze(2)], dim=2),
            )
            for i, (key, value) in enumerate(chosen)
        ]
    return lists


def search_all(
    evaluator: Evaluator, slates: SlateArrays, list_size: int, device: torch.device
) -> npt.NDArray[np.int64]:
    """``search_lists`` for every slate [S, n]."""
    found = [
        search_lists(evaluator, batch, list_size).cpu().numpy()
        for batch in slates.batches(256, device)
    ]
    return np.concatenate(found)


def _next_token(
    layer: EncoderLayer, x_BMD: Tensor, cache: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor, Tensor]:
    """One causal block where each of the M tokens is a rival for the next position.

    A rival sees the list so far and itself, not the other rivals. Returns its output and its own
    key and value [B, A, M, D / A].
    """
    attention = layer.attention
    key, value = attention.project(x_BMD)
    query = attention.heads_of(attention.query(x_BMD))
    scale = query.size(-1) ** -0.5
    score = (query * key).sum(-1, keepdim=True) * scale
    if cache is None:
        seen = value
    else:
        past = query @ cache[0].transpose(2, 3) * scale
        weight = torch.cat([past, score], dim=-1).softmax(-1)
        seen = weight[..., :-1] @ cache[1] + weight[..., -1:] * value
    return layer.after_attention(x_BMD, attention.join(seen)), key, value


def _repeats(item_cat_BMC: Tensor, lists_BK: Tensor) -> Tensor:
    """``repeated_categories`` of every candidate if it came next [B, M, C * W]."""
    index = lists_BK.clamp(min=0).unsqueeze(-1).expand(-1, -1, item_cat_BMC.size(-1))
    rows_BKC = item_cat_BMC.gather(1, index)
    same = (item_cat_BMC.unsqueeze(2) == rows_BKC.unsqueeze(1)).float()  # [B, M, K, C]
    back = torch.arange(lists_BK.size(1), 0, -1, device=lists_BK.device)
    return window_shares(same, back.unsqueeze(0).expand(item_cat_BMC.size(1), -1))
