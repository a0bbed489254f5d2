"""The list that an evaluator would build: greedy search, one item after the other.

Axes: B requests, M candidates, N list positions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.data.arrays import SlateArrays
from training.data.batch import Batch
from training.model.layers import BLOCKED
from training.pairs.evaluator import Evaluator
from training.pairs.next_items import NextItems


@torch.no_grad()
def search_lists(evaluator: Evaluator, batch: Batch, list_size: int) -> Tensor:
    """Greedy lists int64 [B, n] by the evaluator, -1 once all candidates are in."""
    grown = NextItems(evaluator, batch)
    rows = torch.arange(batch.size, device=batch.count.device)
    place = torch.arange(batch.candidates, device=batch.count.device)
    taken_BM = place >= batch.count.unsqueeze(1)
    lists = torch.full([batch.size, list_size], -1, dtype=torch.long, device=rows.device)
    for step in range(min(list_size, batch.candidates)):
        best = grown.scores().masked_fill(taken_BM, BLOCKED).argmax(1)
        free = ~taken_BM[rows, best]
        lists[:, step] = torch.where(free, best, -1)
        taken_BM[rows, best] = True
        grown.take(lists[:, step])
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
