"""Beam search over evaluators that know what stands before an item.

Used twice: as Edge-Rerank (training/baselines), which searches while it serves, and to make the
lists that post-training learns from, where the search costs no request anything.

Axes: B requests, W beam, M candidates, n list positions.
"""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor

from training.data.batch import Batch
from training.model.layers import BLOCKED
from training.pairs.ensemble import Ensemble


@torch.no_grad()
def beam_search(
    ensemble: Ensemble, batch: Batch, list_size: int, beam: int, stable: float = 2.0
) -> Tensor:
    """Lists int64 [B, min(n, M)] of the highest sum of expectations that the beam finds.

    Args:
        stable: greedy from where the lowest reward in the beam is as near to the highest as this
            share of it; above 1 never.
    """
    m, size = batch.candidates, batch.size
    flat = ensemble.growing(_repeat(batch, beam))
    where = batch.count.device
    place = torch.arange(m, device=where)
    taken_BWM = (place >= batch.count.view(-1, 1, 1)).expand(size, beam, m).clone()
    # All beams begin alike: only the first may grow.
    reward_BW = torch.full([size, beam], BLOCKED, device=where)
    reward_BW[:, 0] = 0.0
    lists = torch.full([size, beam, 0], -1, dtype=torch.long, device=where)
    settled_B = torch.zeros(size, dtype=torch.bool, device=where)
    first_B1 = torch.arange(size, device=where).unsqueeze(1) * beam
    for step in range(min(list_size, m)):
        value = flat.expected().view(size, beam, m)
        if ensemble.discounted:
            value = value / torch.log2(torch.tensor(step + 2.0))
        ended = step >= batch.count  # nothing is left to choose: the list stays as it is
        grown = (reward_BW.unsqueeze(2) + value).masked_fill(taken_BWM, 2 * BLOCKED)
        best_BW, at_BW = grown.flatten(1).topk(beam, dim=1)
        parent_BW, item_BW = at_BW // m, at_BW % m
        own = torch.arange(beam, device=where).expand(size, beam)
        parent_BW = torch.where(ended.unsqueeze(1), own, parent_BW)
        reward_BW = torch.where(ended.unsqueeze(1), reward_BW, best_BW)
        item_BW = item_BW.masked_fill(ended.unsqueeze(1), -1)
        alive_BW = reward_BW > BLOCKED / 2
        lowest = reward_BW.masked_fill(~alive_BW, -BLOCKED).amin(1)
        highest = reward_BW[:, 0]
        near = lowest >= highest - (1 - stable) * highest.abs()
        settled_B |= (alive_BW.sum(1) > 1) & near & (stable <= 1)
        reward_BW[:, 1:] = reward_BW[:, 1:].masked_fill(settled_B.unsqueeze(1), BLOCKED)
        index = parent_BW.unsqueeze(2)
        lists = lists.gather(1, index.expand(-1, -1, step))
        lists = torch.cat([lists, item_BW.unsqueeze(2)], dim=2)
        taken_BWM = taken_BWM.gather(1, index.expand(-1, -1, m))
        taken_BWM = taken_BWM.scatter(2, item_BW.clamp(min=0).unsqueeze(2), True)
        flat.follow((first_B1 + parent_BW).flatten())
        flat.take(item_BW.flatten())
    return lists[:, 0]


def _repeat(batch: Batch, times: int) -> Batch:
    return Batch(
        **{one.name: getattr(batch, one.name).repeat_interleave(times, 0) for one in fields(batch)}
    )
