"""Fixed-horizon intervals and tests: right for one look at a time that was chosen beforehand.

Student's t with the degrees of freedom of Welch (1947) and Satterthwaite; where every unit has one
list this is Welch's t-test.
"""

from __future__ import annotations

import math

from scipy import stats

from deploy.analysis.ratio import Difference, Mean


def mean_interval(mean: Mean, alpha: float) -> tuple[float, float] | None:
    """The interval of a ratio of one arm; None with fewer than two units."""
    if mean.units < 2 or not math.isfinite(mean.variance):
        return None
    half = float(stats.t.ppf(1 - alpha / 2, mean.units - 1)) * math.sqrt(mean.variance)
    return mean.value - half, mean.value + half


def interval(effect: Difference, alpha: float) -> tuple[float, float]:
    """The interval of a difference."""
    quantile = float(stats.t.ppf(1 - alpha / 2, max(effect.degrees, 1.0)))
    half = quantile * math.sqrt(effect.variance)
    return effect.value - half, effect.value + half


def p_value(effect: Difference) -> float:
    """Two-sided p of no difference; 1 where nothing varies and nothing differs."""
    deviation = math.sqrt(effect.variance)
    if deviation == 0:
        return 1.0 if effect.value == 0 else 0.0
    return float(2 * stats.t.sf(abs(effect.value) / deviation, max(effect.degrees, 1.0)))
