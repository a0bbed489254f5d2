"""The lists that evaluators would build, one item after the other.

Axes: B requests, M candidates, N list positions, S slates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import pad

from training.data.arrays import SlateArrays
from training.data.batch import Batch
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


def search_lists(
    ensemble: Ensemble, batch: Batch, list_size: int, beam: int = 1
) -> tuple[Tensor, Tensor]:
    """``beam_search``, padded to ``list_size``: lists [B, N] by -1, expectations [B, N, M] by 0."""
    lists, expected = beam_search(ensemble, batch, list_size, beam)
    more = list_size - lists.size(1)
    return pad(lists, (0, more), value=-1), pad(expected, (0, 0, 0, more))


def search_all(
    ensemble: Ensemble, slates: SlateArrays, list_size: int, device: torch.device, beam: int = 1
) -> Searched:
    """``beam_search`` for every slate."""
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
