"""Logged slates that an off-policy estimate can use, and why the others cannot be used.

Axes: S slates, N padded list positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from training.data.arrays import SlateArrays
from training.evaluation.alignment import Bools, Float64, Floats

#: Log-probabilities this far above 0 are rounding; a choice less than this below 0 was certain.
ROUNDING = 1e-4


@dataclass(frozen=True)
class Logged:
    """Slates of a policy that explored.

    Attributes:
        log_prob: [S, N], natural log-probability of each choice given those before it.
        reward: [S, N], finite.
        shown: bool [S, N], real positions: True up to a list's end, then False.
        user: [S], whom each list was shown to, as any sortable labels.

    What stands at padding is ignored.

    Raises:
        ValueError: shapes that do not fit, or propensities and rewards that cannot be.
    """

    log_prob: Float64
    reward: Float64
    shown: Bools
    user: npt.NDArray[Any]

    def __post_init__(self) -> None:
        shape = self.shown.shape
        if len(shape) != 2 or self.log_prob.shape != shape or self.reward.shape != shape:
            raise ValueError(
                f"log_prob {self.log_prob.shape}, reward {self.reward.shape} and shown {shape}; "
                "allowed: [S, N] each"
            )
        if self.user.shape != shape[:1]:
            raise ValueError(
                f"user has shape {self.user.shape}; allowed: one for each of {shape[0]}"
            )
        if (self.shown[:, 1:] & ~self.shown[:, :-1]).any():
            raise ValueError("shown has a gap: a list's positions run from the first to its end")
        check_log_probs("logged log_prob", self.log_prob, self.shown, allow_zero=False)
        odd = self.shown & ~np.isfinite(self.reward)
        if odd.any():
            raise ValueError(f"reward of slate {np.argwhere(odd)[0][0]} is not finite")

    def __len__(self) -> int:
        return len(self.shown)

    def take(self, rows: npt.NDArray[np.int64]) -> Logged:
        """A part of the slates."""
        return Logged(self.log_prob[rows], self.reward[rows], self.shown[rows], self.user[rows])


def check_log_probs(name: str, log_prob: Floats, shown: Bools, allow_zero: bool) -> None:
    """Raise ValueError for log-probabilities [S, N] that are none.

    Args:
        allow_zero: whether a probability of 0 (-inf) may be: of a target policy, never of the
            policy that made the choice.
    """
    values = np.where(shown, log_prob, 0.0)
    wrong = np.isnan(values) | (values > ROUNDING)
    if not allow_zero:
        wrong |= values == -np.inf
    if wrong.any():
        row, place = (int(index) for index in np.argwhere(wrong)[0])
        value = float(values[row, place])
        allowed = "0 or less" if allow_zero else "0 or less, and finite: the choice was made"
        raise ValueError(
            f"{name} of slate {row}, position {place}, is {value} (a probability of "
            f"{np.exp(value):.4g}); allowed: {allowed}. Whatever wrote it logs something else than "
            "natural log-probabilities of single choices"
        )


@dataclass(frozen=True)
class Exploration:
    """Which slates were explored.

    Attributes:
        rows: the usable slates among all.
        share: of all slates.
        why: what was left out and why; the whole reason where nothing is usable.
        usable: whether there is anything to estimate from.
    """

    rows: npt.NDArray[np.int64]
    share: float
    why: str
    usable: bool


def explored(slates: SlateArrays) -> Exploration:
    """Pick the slates that a policy with exploration has made, with its propensities.

    Left out: empty lists, fallbacks (shown by no policy), slates without log_prob, and greedy ones
    (temperature 0): those say nothing of what was not shown. Where exploring depends on a draw or
    a hash of the request, the rest is as good a sample as the whole.
    """
    shown = slates.exposed >= 0
    listed = shown.any(axis=1)
    fallback = listed & (slates.fallback != "")
    unlogged = listed & ~fallback & np.isnan(np.where(shown, slates.log_prob, np.nan)).all(axis=1)
    greedy = listed & ~fallback & ~unlogged & ~(slates.temperature > 0)
    left_out = {
        "showed nothing": int((~listed).sum()),
        "were fallbacks": int(fallback.sum()),
        "have no log_prob": int(unlogged.sum()),
        "were logged greedily (temperature 0)": int(greedy.sum()),
    }
    rows = np.flatnonzero(listed & ~fallback & ~unlogged & ~greedy)
    why = "; ".join(f"{n} of {len(slates)} slates {text}" for text, n in left_out.items() if n)
    choices = slates.log_prob[rows][shown[rows]]
    share = len(rows) / len(slates) if len(slates) else 0.0
    if len(rows) and not (choices > -ROUNDING).all():
        return Exploration(rows, share, why, usable=True)
    if len(rows):
        why = "every logged choice had probability 1" + (f"; {why}" if why else "")
    return Exploration(rows[:0], 0.0, f"{why or 'no slates'}: {REMEDY}", usable=False)


REMEDY = (
    "the policy never tried anything else than it would show anyway, so the log cannot tell what "
    "another order would earn. Serve a share of requests with a temperature above 0 "
    "(docs/off_policy.md), and keep the log-probability of each choice"
)
