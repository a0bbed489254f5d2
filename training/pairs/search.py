"""The lists that evaluators would build, one item after the other.

Axes: B requests, M candidates, N list positions, S slates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.data.arrays import SlateArrays
from training.data.batch import Batch
from training.model.layers import BLOCKED
from training.pairs.beam import beam_search
from training.pairs.ensemble import Ensemble


@dataclass(frozen=True)
class Searched:
    """The evaluators' own list of every slate, and what they thought of its rivals.

    Attributes:
        lists: int64 [S, N], candidate indices, -1 once all candidates are in.
        scores: float16 [S, N, M], of every candidate at each position after the items before it:
            the logit of the expected utility where it is binary, else the expectation over its
            standard deviation. 2 N M bytes a slate.
    """

    lists: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float16]

    def of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Lists [B, N] and scores [B, N, M] of a batch of these slates."""
        rows, device = batch.row.cpu().numpy(), batch.row.device
        scores = torch.from_numpy(self.scores[rows, :, : batch.candidates])
        return torch.from_numpy(self.lists[rows]).to(device), scores.to(device).float()


@torch.no_grad()
def search_lists(
    ensemble: Ensemble, batch: Batch, list_size: int, beam: int = 1
) -> tuple[Tensor, Tensor]:
    """Lists int64 [B, N], -1 once all candidates are in, and the expectations [B, N, M].

    ``beam`` 1 is greedy: each item is the best next one. A wider one weighs what an item does to
    those after it, at as many times the cost.
    """
    ahead = beam_search(ensemble, batch, list_size, beam) if beam > 1 else None
    grown = ensemble.growing(batch)
    rows = torch.arange(batch.size, device=batch.count.device)
    place = torch.arange(batch.candidates, device=batch.count.device)
    taken_BM = place >= batch.count.unsqueeze(1)
    lists = torch.full([batch.size, list_size], -1, dtype=torch.long, device=rows.device)
    expected = torch.zeros([batch.size, list_size, batch.candidates], device=rows.device)
    for step in range(min(list_size, batch.candidates)):
        expected[:, step] = grown.expected()
        free_BM = expected[:, step].masked_fill(taken_BM, BLOCKED)
        best = free_BM.argmax(1) if ahead is None else ahead[:, step].clamp(min=0)
        free = ~taken_BM[rows, best]
        lists[:, step] = torch.where(free, best, -1)
        taken_BM[rows, best] = True
        grown.take(lists[:, step])
    return lists, expected


def search_all(
    ensemble: Ensemble, slates: SlateArrays, list_size: int, device: torch.device, beam: int = 1
) -> Searched:
    """``search_lists`` for every slate."""
    size = len(slates), list_size
    lists = np.full(size, -1, np.int64)
    scores = np.zeros((*size, int(slates.count.max())), np.float16)
    scale = 1.0
    for batch in slates.batches(256, device):
        found, expected = search_lists(ensemble, batch, list_size, beam)
        rows = batch.row.cpu().numpy()
        lists[rows] = found.cpu().numpy()
        if ensemble.binary:
            expected = torch.logit(expected, eps=1e-6)
        elif scale == 1.0:  # of the first batch, so that all are on one scale
            scale = max(float(expected.std()), 1e-6)
        scores[rows, :, : batch.candidates] = (expected / scale).cpu().numpy()
    return Searched(lists, scores)
