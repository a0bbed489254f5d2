"""Always-valid confidence sequences: intervals that hold at all looks together.

The mixture sequential probability ratio test (Robbins 1970, "Statistical Methods Related to the Law
of the Iterated Logarithm"; Johari, Koomen, Pekelis and Walsh 2022, "Always Valid Inference").
For an estimate x with variance v, and effects mixed as N(0, tau^2) around the null theta,

    Lambda(theta) = sqrt(v / (v + tau^2)) * exp(tau^2 (x - theta)^2 / (2 v (v + tau^2)))

has expectation at most 1 under theta at any time of stopping, so that by Ville's inequality theta
leaves {Lambda < 1 / alpha} ever with a chance of at most alpha. Solved for theta:

    |x - theta| <= sqrt(v (v + tau^2) / tau^2 * (log((v + tau^2) / v) + 2 log(1 / alpha)))

Units come back, so their totals grow after they were counted, and x at two looks has not the
independent increments that the martingale asks for. What holds instead: where cov(x_s, x_t) is at
least v_t for looks s < t, as it is when what a unit does later agrees with what it did before, the
standardised estimates of all looks are correlated at least as highly as those of Brownian motion at
the times 1 / v; by Slepian's inequality they then cross a one-sided boundary at most as often. That
the variances are estimated makes it asymptotic (Waudby-Smith et al. 2024, "Time-uniform central
limit theory and asymptotic confidence sequences"). docs/statistics.md has the argument and the
simulations.
"""

from __future__ import annotations

import math

#: Units in each arm before a sequence begins: normal limits need some.
MIN_UNITS = 100


def mixture_scale(mde: float, mean: float) -> float:
    """tau of a metric: the smallest effect that matters, in the units of the metric.

    The sequence is nearly as narrow as it can be (within 1 %) at the time when it is about as wide
    as tau: in Howard et al. 2021, "Time-uniform, nonparametric, nonasymptotic confidence
    sequences", the best tau^2 / v is 7.9 at alpha 0.05, and half the width is then
    1.08 tau.

    Args:
        mde: relative. mean: of the metric, over all arms together.
    """
    return mde * abs(mean)


def half_width(variance: float, tau: float, alpha: float) -> float:
    """Half the width of the two-sided sequence at a look; raises ValueError for bad arguments."""
    _check(variance, tau, alpha)
    if variance == 0:
        return 0.0
    total = variance + tau**2
    logs = math.log(total / variance) + 2 * math.log(1 / alpha)
    return math.sqrt(variance * total / tau**2 * logs)


def lower_distance(variance: float, tau: float, alpha: float) -> float:
    """How far below the estimate the one-sided lower sequence lies.

    Effects are mixed as a half-normal over the null. The closed form is the conservative one that
    Howard et al. 2021 give for the one-sided normal mixture: with I = 1 / v and rho = 1 / tau^2,
    u = sqrt(2 (I + rho) log(1 + sqrt((I + rho) / rho) / (2 alpha))), and the distance is u / I.
    """
    _check(variance, tau, alpha)
    if variance == 0:
        return 0.0
    rho = 1 / tau**2
    information = 1 / variance
    inside = math.sqrt((information + rho) / rho) / (2 * alpha)
    return math.sqrt(2 * (information + rho) * math.log1p(inside)) / information


def _check(variance: float, tau: float, alpha: float) -> None:
    if not (variance >= 0 and math.isfinite(variance)):
        raise ValueError(f"variance is {variance}; allowed: finite, 0 or more")
    if not (tau > 0 and math.isfinite(tau)):
        raise ValueError(f"tau is {tau}; allowed: finite, above 0")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}; allowed: above 0, below 1")
