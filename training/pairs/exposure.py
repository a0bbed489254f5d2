"""The pairs of the paper (Eq. 7): the shown list sorted by feedback against the shown list."""

from __future__ import annotations

from torch import Tensor

from training.data.batch import Batch
from training.model.gen_reranker import GenReranker
from training.pairs.base import Pairs, different, sort_exposed


class ExposurePairs:
    """Y_w = the exposed list sorted by S, Y_l = the exposed list; a pair where they differ."""

    def __init__(self, alpha: float, gamma: float, examination: float = 0.0) -> None:
        self.alpha = alpha
        self.gamma = gamma
        self.examination = examination

    def pairs(self, batch: Batch, policy: GenReranker, seed: Tensor) -> Pairs:
        chosen = sort_exposed(
            batch.exposed, batch.utility, self.alpha, self.gamma, self.examination
        )
        return Pairs(chosen, batch.exposed, different(chosen, batch.exposed))
