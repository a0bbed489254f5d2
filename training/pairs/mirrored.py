"""Mirrored pairs: the loser is sorted by the same rule, with random items as the clicked ones.

In a pair of Eq. 7 the loser is always the shown order, so "any other order is better" already wins
most pairs. Here winner and loser are moved away from the shown order in the same way; only the
feedback tells them apart.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.data.batch import Batch
from training.model.gen_reranker import GenReranker
from training.pairs.base import Pairs, different, random_keys, sort_exposed


class MirroredPairs:
    """Y_w as in Eq. 7; Y_l the shown list sorted with the utilities of other, random items."""

    def __init__(self, alpha: float, gamma: float, examination: float = 0.0) -> None:
        self.alpha = alpha
        self.gamma = gamma
        self.examination = examination

    def pairs(self, batch: Batch, policy: GenReranker, seed: Tensor) -> Pairs:
        mirror = mirror_utility(batch.exposed, batch.utility, seed)
        chosen, rejected = (
            sort_exposed(batch.exposed, liked, self.alpha, self.gamma, self.examination)
            for liked in (batch.utility, mirror)
        )
        return Pairs(chosen, rejected, different(chosen, rejected))


def mirror_utility(exposed: Tensor, utility: Tensor, seed: Tensor) -> Tensor:
    """The same utilities [B, N] on random other items.

    Items without feedback take them first; those with feedback only once the others run out.
    """
    valid = exposed >= 0
    keys = random_keys(seed, exposed.size(1))
    # Takers in random order: items without feedback, then those with it, padding last.
    rank = keys - 1e3 * (utility > 0).float() - 1e6 * (~valid).float()
    takers = rank.argsort(dim=1, descending=True, stable=True)
    given = utility.masked_fill(~valid, -1.0).sort(dim=1, descending=True).values.clamp(min=0)
    return torch.zeros_like(utility).scatter(1, takers, given)
