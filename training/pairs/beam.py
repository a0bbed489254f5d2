"""Beam search over evaluators that know what stands before an item.

Used twice: as Edge-Rerank (training/baselines), which searches while it serves, and to make the
lists that post-training learns from, where the search costs no request anything.

Axes: B requests, W beam, M candidates, n list positions.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from training.data.batch import Batch
from training.model.layers import BLOCKED
from training.pairs.ensemble import Ensemble


@dataclass(frozen=True)
class _Step:
    """What the beams were before a position, and how they grew.

    Attributes:
        expected_BWM: of every candidate after each beam's items.
        parent_BW, item_BW: the beam that each goes on from, and its item there (-1: none is left).
    """

    expected_BWM: Tensor
    parent_BW: Tensor
    item_BW: Tensor


@torch.no_grad()
def beam_search(
    ensemble: Ensemble, batch: Batch, list_size: int, beam: int, stable: float = 2.0
) -> tuple[Tensor, Tensor]:
    """Lists of the highest sum of expectations that the beam finds.

    Returns the lists int64 [B, n], -1 once all candidates are in, n = min(list_size, M), and what
    was expected of every candidate at each position after the items before it [B, n, M].

    Args:
        beam: W; 1 is greedy, each item is the best next one. A wider one weighs what an item does
            to those after it, at as many times the cost.
        stable: greedy from where the lowest reward in the beam is as near to the highest as this
            share of it; above 1 never.
    """
    m, size = batch.candidates, batch.size
    flat = ensemble.growing(_repeat(batch, beam) if beam > 1 else batch)
    where = batch.count.device
    place = torch.arange(m, device=where)
    taken_BWM = (place >= batch.count.view(-1, 1, 1)).expand(size, beam, m).clone()
    # All beams begin alike: only the first may grow.
    reward_BW = torch.full([size, beam], BLOCKED, device=where)
    reward_BW[:, 0] = 0.0
    steps: list[_Step] = []
    settled_B = torch.zeros(size, dtype=torch.bool, device=where)
    first_B1 = torch.arange(size, device=where).unsqueeze(1) * beam
    for step in range(min(list_size, m)):
        expected_BWM = flat.expected().view(size, beam, m)
        value = expected_BWM
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
        steps.append(_Step(expected_BWM, parent_BW, item_BW))
        taken_BWM = taken_BWM.gather(1, parent_BW.unsqueeze(2).expand(-1, -1, m))
        taken_BWM = taken_BWM.scatter(2, item_BW.clamp(min=0).unsqueeze(2), True)
        if beam > 1:
            flat.follow((first_B1 + parent_BW).flatten())
        flat.take(item_BW.flatten())
    return _trace(steps)


def _trace(steps: list[_Step]) -> tuple[Tensor, Tensor]:
    """Items and expectations along the way that led to the best beam, from its end."""
    rows = torch.arange(steps[0].item_BW.size(0), device=steps[0].item_BW.device)
    beam_B = torch.zeros_like(rows)
    items, expected = [], []
    for step in reversed(steps):
        items.append(step.item_BW[rows, beam_B])
        beam_B = step.parent_BW[rows, beam_B]
        expected.append(step.expected_BWM[rows, beam_B])
    return torch.stack(items[::-1], dim=1), torch.stack(expected[::-1], dim=1)


def _repeat(batch: Batch, times: int) -> Batch:
    return Batch(
        **{one.name: getattr(batch, one.name).repeat_interleave(times, 0) for one in fields(batch)}
    )
