"""Ratio metrics and their differences: the delta method over units.

A metric is a ratio of sums, R = sum_i S_i / sum_i N_i over units i: feedback by lists (or items)
shown. The unit, not the list, is what was dealt to an arm, so R has the variance of a ratio of
means (Deng, Knoblich and Lu 2018, "Applying the Delta Method in Metric Analytics", eq. 4):

    var R = n / (n - 1) * sum_i (S_i - R N_i)^2 / (sum_i N_i)^2

Written as influences, phi_i = (S_i - R N_i) / sum N, every figure here is a sum of them, and so is
its variance. That is what lets one unit appear in several stages and still count once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deploy.analysis.units import Ints

Floats = npt.NDArray[np.float64]

#: A relative lift is given where the control's mean is so many standard errors above zero: nearer,
#: its distribution is nowhere near normal.
CLEARLY_POSITIVE = 5.0


@dataclass(frozen=True)
class Mean:
    """A ratio metric of one arm, its variance, and of how many units; NaN where there is none."""

    units: int
    value: float
    variance: float


def ratio_mean(sums: Floats, sizes: Floats) -> Mean:
    """R = sum S / sum N of units [n] with feedback S [n] and lists or items N [n]."""
    n, total = len(sums), float(sizes.sum())
    if not total > 0:
        return Mean(n, np.nan, np.nan)
    value = float(sums.sum()) / total
    if n < 2:
        return Mean(n, value, np.nan)
    residual = sums - value * sizes
    return Mean(n, value, n / (n - 1) * float(residual @ residual) / total**2)


@dataclass(frozen=True)
class Difference:
    """An arm against the control, as sums of influences of U units.

    Attributes:
        units: of the control and of the arm. means: weighted over the stages, likewise.
        value: arm - control, or arm / control - 1.
        influence: of each unit on ``value`` [U]; they sum to 0, their squares to its variance.
        degrees: of freedom of the variance, after Welch and Satterthwaite.
    """

    units: tuple[int, int]
    means: tuple[float, float]
    value: float
    influence: Floats
    degrees: float

    @property
    def variance(self) -> float:
        return float(self.influence @ self.influence)


@dataclass(frozen=True)
class TwoArms:
    """Rows (unit, stage) of the control and of one arm: what a comparison is made from.

    Attributes:
        unit: from 0, dense [rows]; stage [rows]; treated [rows].
    """

    unit: Ints
    stage: Ints
    treated: npt.NDArray[np.bool_]

    @property
    def units(self) -> int:
        return int(self.unit.max()) + 1 if len(self.unit) else 0


def stage_shares(arms: TwoArms, sizes: Floats) -> dict[int, float]:
    """How much each stage counts: N_T N_C / (N_T + N_C), as Mantel and Haenszel weigh strata.

    Weights of arms differ from stage to stage, and so do the days; comparing totals over stages
    would take the one for the other (Simpson's paradox). A stage in which an arm has fewer than two
    units tells nothing and counts 0. Sums to 1, or is empty.
    """
    shares = {}
    for stage in np.unique(arms.stage).tolist():
        here = arms.stage == stage
        treated, control = here & arms.treated, here & ~arms.treated
        sides = float(sizes[treated].sum()), float(sizes[control].sum())
        if min(treated.sum(), control.sum()) >= 2 and min(sides) > 0:
            shares[stage] = sides[0] * sides[1] / sum(sides)
    total = sum(shares.values())
    return {stage: share / total for stage, share in shares.items()}


@dataclass(frozen=True)
class _Sides:
    """Each arm's mean, weighted over stages, and what each unit adds to its error."""

    means: dict[bool, float]
    influence: dict[bool, Floats]
    units: dict[bool, int]

    def linear(self, value: float, control: float, treated: float) -> Difference:
        """The difference whose influence is treated * (arm's) + control * (control's)."""
        sides = {False: control * self.influence[False], True: treated * self.influence[True]}
        parts = {side: float(own @ own) for side, own in sides.items()}
        spread = sum(part**2 / (self.units[side] - 1) for side, part in parts.items())
        total = sum(parts.values())
        return Difference(
            units=(self.units[False], self.units[True]),
            means=(self.means[False], self.means[True]),
            value=value,
            influence=sides[False] + sides[True],
            degrees=total**2 / spread if spread > 0 else float(min(self.units.values()) - 1),
        )


def _sides(
    arms: TwoArms, sums: Floats, sizes: Floats, shares: dict[int, float] | None
) -> _Sides | None:
    shares = stage_shares(arms, sizes) if shares is None else shares
    if not shares:
        return None
    influence = {side: np.zeros(arms.units) for side in (False, True)}
    means = {False: 0.0, True: 0.0}
    counted = {side: np.zeros(arms.units, bool) for side in (False, True)}
    for stage, share in shares.items():
        for side in (False, True):
            rows = np.flatnonzero((arms.stage == stage) & (arms.treated == side))
            n, total = len(rows), float(sizes[rows].sum())
            mean = float(sums[rows].sum()) / total
            # The factor makes the sum of squares an unbiased variance.
            own = (sums[rows] - mean * sizes[rows]) * (share / total * np.sqrt(n / (n - 1)))
            influence[side][arms.unit[rows]] += own  # a unit has one row in a stage
            means[side] += share * mean
            counted[side][arms.unit[rows]] = True
    return _Sides(means, influence, {side: int(seen.sum()) for side, seen in counted.items()})


def compare(
    arms: TwoArms, sums: Floats, sizes: Floats, shares: dict[int, float] | None = None
) -> tuple[Difference, Difference | None] | None:
    """The absolute and the relative difference of two arms.

    Args:
        sums: feedback S of each row [rows]; sizes: lists or items N [rows].
        shares: of the stages; without them ``stage_shares(arms, sizes)``.

    Returns:
        None where no stage has two units in both arms; the relative one is None where the control's
        mean is not clearly above zero.
    """
    sides = _sides(arms, sums, sizes, shares)
    if sides is None:
        return None
    control, treated = sides.means[False], sides.means[True]
    absolute = sides.linear(treated - control, -1.0, 1.0)
    noise = float(sides.influence[False] @ sides.influence[False])
    if not control > CLEARLY_POSITIVE * np.sqrt(noise):
        return absolute, None
    ratio = treated / control
    return absolute, sides.linear(ratio - 1, -ratio / control, 1 / control)


def contrast(arms: TwoArms, sums: Floats, sizes: Floats, factor: float) -> Difference | None:
    """R of the arm less ``factor`` times R of the control: no ratio, so it may be near zero."""
    sides = _sides(arms, sums, sizes, None)
    if sides is None:
        return None
    return sides.linear(sides.means[True] - factor * sides.means[False], -factor, 1.0)
