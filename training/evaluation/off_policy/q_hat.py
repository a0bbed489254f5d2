"""Predicted rewards for the doubly robust estimator: q of every candidate at every position.

Any array may serve as q. This one is the listwise evaluator's (training/pairs/evaluator.py),
cross-fitted: what it says of a user's slates comes from a copy that has seen other users alone, so
that the error of a prediction and the reward it is set against are independent (Chernozhukov et
al., Econometrics Journal 2018).

Axes: B slates of a batch, S slates, N list positions, M candidates.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from training.data.arrays import SlateArrays
from training.data.batch import Batch
from training.evaluation.alignment import Bools
from training.pairs.evaluator import Evaluator
from training.pairs.fit_evaluator import fit_evaluator, share_of_users
from training.pairs.next_items import NextItems
from training.settings import EvaluatorSettings

log = logging.getLogger(__name__)

_CPU = torch.device("cpu")


class Predictor:
    """q of candidates, from one evaluator or, for each half of the users, from the other half's.

    Args:
        evaluators: one, or two.
        which: of two evaluators, the one to ask about each slate [S] (``Batch.row`` says which
            slate): False the first, True the second.
    """

    def __init__(self, evaluators: tuple[Evaluator, ...], which: Bools | None = None) -> None:
        if len(evaluators) != (1 if which is None else 2):
            raise ValueError(f"{len(evaluators)} evaluators; allowed: one, or two and `which`")
        self._evaluators = evaluators
        self._which = None if which is None else torch.from_numpy(which)

    def next_items(self, batch: Batch, lists_BN: Tensor) -> Tensor:
        """q_k(x, y_1 .. y_k-1, a) of every candidate a after each prefix of a list [B, N, M].

        In the units of the slates' utility. Meaningless at padding and after a list's end.
        """
        if self._which is None:
            return next_item_values(self._evaluators[0], batch, lists_BN)
        out = torch.zeros(*lists_BN.shape, batch.candidates)
        second = self._which[batch.row]
        for evaluator, mine in zip(self._evaluators, (~second, second)):
            if mine.any():
                part = Batch(**{f.name: getattr(batch, f.name)[mine] for f in fields(batch)})
                out[mine] = next_item_values(evaluator, part, lists_BN[mine])
        return out


@torch.no_grad()
def next_item_values(evaluator: Evaluator, batch: Batch, lists_BN: Tensor) -> Tensor:
    """Expected utility of every candidate after each prefix of the lists [B, N, M]."""
    grown = NextItems(evaluator, batch)
    steps = []
    for place in range(lists_BN.size(1)):
        score = grown.scores()
        steps.append(score.sigmoid() if evaluator.binary else score)
        grown.take(lists_BN[:, place])
    return torch.stack(steps, dim=1)


@dataclass(frozen=True)
class CrossFit:
    """Two evaluators, each fitted on one half of the users.

    Attributes:
        evaluators: the first for users of the first half (it was fitted on the second), and so on.
        gains: share by which the held-out loss of each is below the position's rate; a poor one
            costs width, not truth.
    """

    evaluators: tuple[Evaluator, Evaluator]
    gains: tuple[float, float]
    seed: int

    def predictor(self, slates: SlateArrays) -> Predictor:
        """For these slates, of the same or of other users."""
        return Predictor(self.evaluators, _second_half(slates, self.seed))


def cross_fit(
    slates: SlateArrays,
    settings: EvaluatorSettings,
    seed: int = 0,
    progress: Callable[[str], None] = log.info,
) -> CrossFit:
    """Fit an evaluator on either half of the users, each for the other half's slates.

    Within a half, every fifth user decides when to stop.

    Raises:
        ValueError: too few users to cut in two, twice.
    """
    second = _second_half(slates, seed)
    stops = share_of_users(slates.user, 0.2, f"off-policy stop {seed}")
    listed = (slates.exposed >= 0).any(axis=1)
    evaluators, gains = [], []
    for half in (second, ~second):
        fit, stop = np.flatnonzero(half & ~stops & listed), np.flatnonzero(half & stops & listed)
        if not (len(fit) and len(stop)):
            raise ValueError(
                f"{len(set(slates.user))} users are too few to fit evaluators on either half; "
                "take more slates, or an evaluator fitted on others"
            )
        with torch.random.fork_rng():
            evaluator, report = fit_evaluator(
                slates.take(fit), slates.take(stop), settings, seed, _CPU, progress
            )
        evaluators.append(evaluator)
        gains.append(report.gain)
    return CrossFit((evaluators[0], evaluators[1]), (gains[0], gains[1]), seed)


def _second_half(slates: SlateArrays, seed: int) -> Bools:
    return share_of_users(slates.user, 0.5, f"off-policy {seed}")
