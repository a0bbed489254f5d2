"""How many units an experiment needs, and what it can see with those it has.

For a two-sided fixed-horizon test of a difference with per-unit variances s_T^2 and s_C^2:

    n = (z_{1 - alpha/2} + z_{power})^2 (s_T^2 / w_T + s_C^2 / w_C) / effect^2

units in all, w the arms' weights (Chow, Shao and Wang 2008, "Sample Size Calculations in Clinical
Research", ch. 3). A confidence sequence that is looked at all the time needs more: its half-width
takes the place of z_{1 - alpha/2} sd, and the power at the end is at least that of its last look.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from deploy.analysis.sequences import half_width


def fixed_power(effect: float, variance: float, alpha: float) -> float:
    """Chance that the fixed-horizon test of an estimate with this variance finds ``effect``."""
    z = NormalDist().inv_cdf(1 - alpha / 2)
    shift = effect / math.sqrt(variance)
    return _above(z - shift) + _above(z + shift)


def last_look_power(effect: float, variance: float, tau: float, alpha: float) -> float:
    """Chance that the sequence excludes zero at a look; the chance by then is at least that."""
    half = half_width(variance, tau, alpha)
    deviation = math.sqrt(variance)
    return _above((half - effect) / deviation) + _above((half + effect) / deviation)


def variance_needed(effect: float, power: float, alpha: float, tau: float | None = None) -> float:
    """The largest variance of the estimate with which an effect is found with ``power``.

    Args:
        tau: of the sequence that decides; None for the fixed-horizon test.
    """
    if not (effect != 0 and 0 < alpha < power < 1):
        raise ValueError(
            f"effect is {effect}, alpha {alpha}, power {power}; allowed: an effect other than 0, "
            "and a power above alpha and below 1"
        )
    low, high = 0.0, effect**2 * 1e6
    for _ in range(100):
        middle = (low + high) / 2
        found = (
            fixed_power(effect, middle, alpha)
            if tau is None
            else last_look_power(effect, middle, tau, alpha)
        )
        low, high = (middle, high) if found >= power else (low, middle)
    return low


def units_needed(
    effect: float,
    unit_variance: float,
    weights: tuple[float, float],
    power: float,
    alpha: float,
    tau: float | None = None,
) -> int:
    """Units in the two arms together that find ``effect`` with ``power``.

    Args:
        effect: absolute. unit_variance: of a unit's linearised value, n var R of ``ratio_mean``.
        weights: of the control and of the arm, as shares of all units of the two.
    """
    share = sum(weights)
    per_unit = unit_variance * (share / weights[0] + share / weights[1])
    return math.ceil(per_unit / variance_needed(effect, power, alpha, tau))


def _above(z: float) -> float:
    """The chance that a standard normal variable is above z."""
    return math.erfc(z / math.sqrt(2)) / 2
