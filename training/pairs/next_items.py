"""What an evaluator expects of every candidate as the next item of a growing list.

What an item earns depends on the items before it only, so each step costs one token a candidate:
keys and values of the list so far are kept.

Axes: B requests, M candidates, K items so far, C columns of kinship, D width, A attention heads.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.data.batch import Batch
from training.model.layers import EncoderLayer
from training.pairs.evaluator import Evaluator
from training.pairs.kinship import WINDOWS


class NextItems:
    """A list for each request of a batch, and an evaluator's view of what may come next."""

    def __init__(self, evaluator: Evaluator, batch: Batch) -> None:
        self._evaluator = evaluator
        self._batch = batch
        self._own_BMD = evaluator.items(batch)
        self._rows = torch.arange(batch.size, device=self._own_BMD.device)
        self._size = 0  # K
        #: Of every candidate to the last items, the newest first [B, M, C].
        self._kin: list[Tensor] = []
        self._caches: list[tuple[Tensor, Tensor]] = []
        self._rivals: list[tuple[Tensor, Tensor]] = []

    def scores(self) -> Tensor:
        """Logit (binary utility) or value of each candidate at the next position [B, M]."""
        place = torch.tensor([self._size], device=self._rows.device)
        x_BMD = self._evaluator.enter(self._own_BMD, place, self._repeats())
        self._rivals = []
        for index, layer in enumerate(self._evaluator.layers):
            cache = self._caches[index] if self._caches else None
            x_BMD, key, value = _next_token(layer, x_BMD, cache)  # type: ignore[arg-type]
            self._rivals.append((key, value))
        return self._evaluator.leave(self._own_BMD, x_BMD, place)

    def _repeats(self) -> Tensor:
        """``Kinship.of_lists`` of every candidate if it came next [B, M, columns * W]."""
        nothing = self._own_BMD.new_zeros(
            (*self._own_BMD.shape[:2], self._evaluator.kinship.columns)
        )
        shares = []
        for window in WINDOWS:
            shares.append(sum(self._kin[:window], start=nothing) / window)
        return torch.cat(shares, dim=-1)

    def take(self, item_B: Tensor) -> None:
        """Put an item at the position that was scored last; -1 once a list has ended."""
        index_B = item_B.clamp(min=0)
        chosen = [
            (key[self._rows, :, index_B].unsqueeze(2), value[self._rows, :, index_B].unsqueeze(2))
            for key, value in self._rivals
        ]
        if self._caches:
            chosen = [
                (torch.cat([old[0], new[0]], dim=2), torch.cat([old[1], new[1]], dim=2))
                for old, new in zip(self._caches, chosen)
            ]
        self._caches = chosen
        self._size += 1
        cat_BMC = self._batch.item_cat
        newest_B1C = cat_BMC[self._rows, index_B].unsqueeze(1)
        kin_BMC = self._evaluator.kinship(newest_B1C, cat_BMC).squeeze(2)
        self._kin = [kin_BMC, *self._kin][: max(WINDOWS)]

    def follow(self, parent_B: Tensor) -> None:
        """Go on from other rows: row i takes over the list of row ``parent_B[i]``, for a beam.

        Both must be rows of one request: what belongs to the request stays where it is.
        """
        self._kin = [kin[parent_B] for kin in self._kin]
        self._caches = [(key[parent_B], value[parent_B]) for key, value in self._caches]
        self._rivals = [(key[parent_B], value[parent_B]) for key, value in self._rivals]


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
        # Keys before rivals: the softmax over so few is three times as fast along an axis that is
        # not the last.
        past = cache[0] @ query.transpose(2, 3) * scale
        weight = torch.cat([past, score.transpose(2, 3)], dim=2).softmax(2).transpose(2, 3)
        seen = weight[..., :-1] @ cache[1] + weight[..., -1:] * value
    return layer.after_attention(x_BMD, attention.join(seen)), key, value
