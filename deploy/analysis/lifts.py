"""Each metric of each arm against the control, at every look."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from contracts.experiment_metrics import Metric
from contracts.experiments import Arm, Experiment
from deploy.analysis import cuped, fixed, sequences
from deploy.analysis.collecting import Collected
from deploy.analysis.ratio import Difference, TwoArms, compare
from deploy.analysis.reading import ITEMS, LISTS
from deploy.analysis.status import Cuped, Effect, Lift, Point, Scale
from deploy.analysis.units import Floats, Ints, Lists

#: Units with a past from which on the past is used.
MIN_HISTORY = 100


@dataclass(frozen=True)
class Pair:
    """The rows of the control and one arm.

    Attributes:
        rows: of units that kept to one arm in each stage; arms: the same, for ``compare``.
        numbers: of the units, in the order of ``arms.unit`` [U].
    """

    rows: Lists
    arms: TwoArms
    numbers: Ints


def pair_of(rows: Lists, arm: int) -> Pair:
    """The rows of the control (arm 0) and of another arm, units numbered from 0."""
    rows = rows.at((rows.arm == 0) | (rows.arm == arm))
    numbers, unit = np.unique(rows.unit, return_inverse=True)
    return Pair(rows, TwoArms(unit.reshape(-1), rows.stage, rows.arm == arm), numbers)


def columns_of(metric: Metric, kinds: tuple[str, ...]) -> tuple[int, int]:
    """The columns of S and N in the sums of a row."""
    return 3 + kinds.index(metric.kind), LISTS if metric.per == "list" else ITEMS


@dataclass
class _Series:
    """What the looks at one metric of one arm have given so far."""

    points: dict[Scale, list[Point]] = field(
        default_factory=lambda: {"absolute": [], "relative": []}
    )
    effects: dict[Scale, Effect | None] = field(default_factory=dict)
    cuped: Cuped | None = None
    units: tuple[int, int] = (0, 0)


class LiftTracker:
    """Follows the primary and the secondary metrics over the looks."""

    def __init__(self, experiment: Experiment, kinds: tuple[str, ...]) -> None:
        self._experiment, self._kinds = experiment, kinds
        stopping = experiment.stopping
        self._alpha = stopping.alpha
        # All treatments together alarm at most once in 1 / alpha.
        self._always_alpha = stopping.alpha / len(experiment.treatments)
        metrics = (experiment.primary, *experiment.secondary)
        self._series = {(m.name, a.name): _Series() for m in metrics for a in experiment.treatments}

    def look(self, time: int, collected: Collected) -> None:
        """Add the look at ``time`` (ms) to every sequence."""
        rows = collected.totals.counted()
        for number, arm in enumerate(self._experiment.treatments, start=1):
            pair = pair_of(rows, number)
            for metric in (self._experiment.primary, *self._experiment.secondary):
                self._look(time, collected, pair, metric, arm)

    def lifts(self) -> tuple[Lift, ...]:
        """What there is as of the last look, the primary metric first."""
        experiment = self._experiment
        return tuple(
            self._lift(metric, arm)
            for metric in (experiment.primary, *experiment.secondary)
            for arm in experiment.treatments
        )

    def _look(self, time: int, collected: Collected, pair: Pair, metric: Metric, arm: Arm) -> None:
        series = self._series[metric.name, arm.name]
        top, bottom = columns_of(metric, self._kinds)
        sums, sizes = pair.rows.sums[:, top], pair.rows.sums[:, bottom]
        found = compare(pair.arms, sums, sizes)
        treated = pair.arms.treated
        series.units = tuple(  # type: ignore[assignment]
            len(np.unique(pair.arms.unit[side])) for side in (~treated, treated)
        )
        series.effects = {"absolute": None, "relative": None}
        if found is None:
            series.cuped = _no_past(0, "there are no two arms to compare")
            return
        past, series.cuped = self._past(collected, pair, top, bottom, sizes)
        mean = float(sums.sum() / sizes.sum())
        mde = self._experiment.stopping.mde
        absolute, relative = found
        adjusted = absolute if past is None else cuped.adjust(absolute, past)
        if relative is not None and past is not None:
            relative = cuped.adjust_relative(relative, absolute, adjusted, past)
        scales: tuple[tuple[Scale, Difference | None, float], ...] = (
            ("absolute", adjusted, sequences.mixture_scale(mde, mean)),
            ("relative", relative, mde),
        )
        for scale, effect, tau in scales:
            if effect is None or min(effect.units) < sequences.MIN_UNITS or not tau > 0:
                continue
            if not effect.variance > 0:
                continue
            points = series.points[scale]
            points.append(self._point(time, effect, tau))
            series.effects[scale] = self._effect(effect, tuple(points))
        if past is not None and series.effects["absolute"] is not None:
            plain = self._point(time, absolute, scales[0][2])
            series.cuped = _with_past(
                series.cuped,
                cuped.variance_reduction(absolute, adjusted),
                self._effect(absolute, (plain,), keep=False),
            )

    def _past(
        self, collected: Collected, pair: Pair, top: int, bottom: int, sizes: Floats
    ) -> tuple[Difference | None, Cuped]:
        known = collected.has_history[pair.numbers]
        units = int(known.sum())
        if units < MIN_HISTORY:
            why = f"{units} of the units have lists before the start; {MIN_HISTORY} are needed"
            return None, _no_past(units, why)
        before = collected.history_of(pair.numbers)
        own = cuped.covariate(before[:, top], before[:, bottom])
        past = cuped.imbalance(pair.arms, own[pair.arms.unit], sizes)
        if past is None:
            return None, _no_past(units, "the units' past does not vary in this metric")
        return past, _no_past(units, "the effect has no variance to take away")

    def _point(self, time: int, effect: Difference, tau: float) -> Point:
        half = sequences.half_width(effect.variance, tau, self._always_alpha)
        return Point(
            time=time, estimate=effect.value, low=effect.value - half, high=effect.value + half
        )

    def _effect(self, effect: Difference, points: tuple[Point, ...], keep: bool = True) -> Effect:
        low, high = fixed.interval(effect, self._alpha)
        return Effect(
            estimate=effect.value,
            low=low,
            high=high,
            p=fixed.p_value(effect),
            always_low=points[-1].low,
            always_high=points[-1].high,
            sequence=points if keep else (),
        )

    def _lift(self, metric: Metric, arm: Arm) -> Lift:
        series = self._series[metric.name, arm.name]
        absolute = series.effects.get("absolute")
        relative = series.effects.get("relative")
        return Lift(
            metric=metric.name,
            arm=arm.name,
            role="primary" if metric == self._experiment.primary else "secondary",
            better=metric.better,
            absolute=absolute,
            relative=relative,
            improvement=_improvement(absolute, metric.better),
            cuped=series.cuped or _no_past(0, "there are no lists yet"),
            why=self._why(series, absolute, relative),
        )

    def _why(self, series: _Series, absolute: Effect | None, relative: Effect | None) -> str:
        if absolute is None:
            if min(series.units) < sequences.MIN_UNITS:
                return (
                    f"the control has {series.units[0]} units and the arm {series.units[1]}; "
                    f"{sequences.MIN_UNITS} each are needed"
                )
            return "the metric does not vary between units, so there is nothing to tell apart"
        return "" if relative is not None else "the control's mean is not clearly above zero"


def _improvement(
    absolute: Effect | None, better: Literal["higher", "lower"]
) -> Literal["better", "worse", "undecided"]:
    if absolute is None or absolute.always_low <= 0 <= absolute.always_high:
        return "undecided"
    return "better" if (absolute.estimate > 0) == (better == "higher") else "worse"


def _no_past(units: int, why: str) -> Cuped:
    return Cuped(
        used=False, variance_reduction=None, units_with_history=units, unadjusted=None, why=why
    )


def _with_past(before: Cuped, saved: float, unadjusted: Effect) -> Cuped:
    assert math.isfinite(saved)
    return Cuped(
        used=True,
        variance_reduction=saved,
        units_with_history=before.units_with_history,
        unadjusted=unadjusted,
        why=f"adjusted by what {before.units_with_history} of the units did before the start",
    )
