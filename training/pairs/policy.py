"""Policy pairs: lists drawn from the policy itself, ranked by the evaluator.

Pairs of shown items say nothing of the candidates that were not shown, and push probability
there; here chosen and rejected both come from what the policy would serve.

Axes: B slates, L lists a slate, N list positions, P pairs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.data.batch import Batch
from training.model.gen_reranker import GenReranker
from training.pairs.base import Pairs, different
from training.pairs.drawing import draw_lists
from training.pairs.ensemble import Ensemble
from training.pairs.evaluator import Evaluator
from training.settings import PairSettings


class PolicyPairs:
    """Pairs, by the evaluator, of sampled lists and the greedy one.

    Args:
        settings: how lists are drawn (``draw``, ``draws``, ``temperature``) and compared
            (``compare``, ``margin``).
        searched: int64 [S, N], for each slate of the dataset one more list: the one that the
            evaluator would build itself. It is fixed, so it is made once.
        pool: the policy that lists are drawn from, always the same ones, in the place of the one
            that is being trained.
    """

    def __init__(
        self,
        evaluator: Evaluator | Ensemble,
        list_size: int,
        settings: PairSettings,
        searched: npt.NDArray[np.int64] | None = None,
        pool: GenReranker | None = None,
    ) -> None:
        self.evaluator = evaluator
        self.list_size = list_size
        self.settings = settings
        self.searched = searched
        self.pool = pool

    @torch.no_grad()
    def pairs(self, batch: Batch, policy: GenReranker, seed: Tensor) -> Pairs:
        settings = self.settings
        lists = draw_lists(
            policy if self.pool is None else self.pool,
            batch,
            self.list_size,
            settings.draws,
            settings.temperature,
            seed if self.pool is None else batch.row,
            settings.draw,
        )
        if self.searched is not None:
            found = torch.from_numpy(self.searched[batch.row.cpu().numpy()]).to(lists.device)
            lists = torch.cat([lists, found.unsqueeze(1)], dim=1)
        value = self.evaluator.value(batch, lists)
        ranked = best_against_worst if settings.compare == "best_worst" else all_against_all
        return ranked(lists, value, settings.margin)


def best_against_worst(lists_BLN: Tensor, value_BL: Tensor, margin: float = 0.0) -> Pairs:
    """One pair a slate; none where the values differ by no more than the margin."""
    rows = torch.arange(lists_BLN.size(0), device=value_BL.device)
    best, worst = value_BL.argmax(1), value_BL.argmin(1)
    chosen, rejected = lists_BLN[rows, best], lists_BLN[rows, worst]
    # Two draws of one list may differ in value by rounding: that is no preference.
    ahead = value_BL[rows, best] > value_BL[rows, worst] + margin
    return Pairs(chosen, rejected, ahead.float() * different(chosen, rejected))


def all_against_all(lists_BLN: Tensor, value_BL: Tensor, margin: float = 0.0) -> Pairs:
    """Every two lists of a slate, P = B L (L - 1) / 2, the better one chosen."""
    size, lists, length = lists_BLN.shape
    first, second = torch.triu_indices(lists, lists, 1, device=value_BL.device)
    swap = value_BL[:, first] < value_BL[:, second]
    better = torch.where(swap, second, first)
    worse = torch.where(swap, first, second)
    rows = torch.arange(size, device=value_BL.device).unsqueeze(1)
    chosen = lists_BLN[rows, better].view(-1, length)
    rejected = lists_BLN[rows, worse].view(-1, length)
    ahead = (value_BL[rows, better] > value_BL[rows, worse] + margin).view(-1)
    slate = rows.expand(-1, first.size(0)).reshape(-1)
    return Pairs(chosen, rejected, ahead.float() * different(chosen, rejected), slate)
