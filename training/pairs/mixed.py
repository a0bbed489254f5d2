"""Pairs of two sources: what the log shows beside what an evaluator thinks.

Axes: B slates, N list positions, P pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from training.data.batch import Batch
from training.model.gen_reranker import GenReranker
from training.pairs.base import Pairs, PairSource, random_keys


class MixedPairs:
    """For a share of the slates the second source's pairs in the place of the first's.

    Which slates these are is drawn anew each epoch, by the slate's seed alone.
    """

    def __init__(self, first: PairSource, second: PairSource, share: float) -> None:
        self.first = first
        self.second = second
        self.share = share

    def pairs(self, batch: Batch, policy: GenReranker, seed: Tensor) -> Pairs:
        # Gumbel(0, 1) is below this with the share as probability.
        limit = -torch.log(-torch.log(torch.tensor(self.share, dtype=torch.float64))).float()
        other = random_keys(seed + 1, 1)[:, 0] < limit.to(seed.device)
        one = _of(self.first.pairs(batch, policy, seed), ~other)
        two = _of(self.second.pairs(batch, policy, seed), other)
        length = max(one.chosen.size(1), two.chosen.size(1))
        return Pairs(
            chosen=torch.cat([_to(pairs.chosen, length) for pairs in (one, two)]),
            rejected=torch.cat([_to(pairs.rejected, length) for pairs in (one, two)]),
            weight=torch.cat([one.weight, two.weight]),
            slate=torch.cat([one.rows(), two.rows()]),
        )


def _of(pairs: Pairs, which_B: Tensor) -> Pairs:
    """The pairs of some slates."""
    rows = pairs.rows()
    kept = which_B[rows]
    return Pairs(pairs.chosen[kept], pairs.rejected[kept], pairs.weight[kept], rows[kept])


def _to(lists_PN: Tensor, length: int) -> Tensor:
    return pad(lists_PN, (0, length - lists_PN.size(1)), value=-1)
