"""What a source of preference pairs is.

Axes: B slates, N list positions, P pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from training.data.batch import Batch
from training.decoding.choice import gumbel
from training.model.gen_reranker import GenReranker


@dataclass(frozen=True)
class Pairs:
    """Pairs of a batch of slates.

    Attributes:
        chosen, rejected: int64 [P, N], candidate indices, -1 after the end.
        weight: float32 [P], 1 for a pair, 0 where the slate gives none.
        slate: int64 [P], the row of each pair's slate in the batch; if left, P = B, one each.
    """

    chosen: Tensor
    rejected: Tensor
    weight: Tensor
    slate: Tensor | None = None

    def rows(self) -> Tensor:
        """``slate``, filled in."""
        if self.slate is not None:
            return self.slate
        return torch.arange(self.chosen.size(0), device=self.chosen.device)


class PairSource(Protocol):
    """Makes pairs of a batch of slates. Further sources implement this and nothing else."""

    def pairs(self, batch: Batch, policy: GenReranker, seed: Tensor) -> Pairs:
        """Pairs of a batch.

        Args:
            policy: the policy as it is now; sources that only read the log do not look at it.
            seed: int64 [B], one for each slate and epoch: a slate's pair does not depend on the
                batch or the process that it falls into.
        """
        ...


def row_seeds(seed: int, epoch: int, rows: Tensor) -> Tensor:
    """int64 [B]: distinct seeds for each (run, epoch, slate)."""
    return (rows + 1) * 1_000_003 + epoch * 7_919 + seed * 104_729


def sort_exposed(
    exposed: Tensor, utility: Tensor, alpha: float, gamma: float, examination: float = 0.0
) -> Tensor:
    """The shown list sorted by S_i = alpha / P_i + gamma * U_i (Eq. 7), ties as shown; [B, N].

    With ``examination`` = eta, U_i is weighted by the inverse of the propensity k^-eta that
    position k was looked at (Joachims et al., arXiv 1608.04468): a click far down says more.
    """
    place = torch.arange(1, exposed.size(1) + 1, device=exposed.device)
    score = (alpha / place + gamma * utility * place**examination).masked_fill(
        exposed < 0, -torch.inf
    )
    order = score.argsort(dim=1, descending=True, stable=True)
    return exposed.gather(1, order)


def random_keys(seed: Tensor, length: int) -> Tensor:
    """Random sort keys [B, length] that depend on each slate's seed alone."""
    return gumbel(seed.unsqueeze(1), 0, length)


def different(first: Tensor, second: Tensor) -> Tensor:
    """float32 [B]: 1 where two lists differ."""
    return (first != second).any(dim=1).float()
