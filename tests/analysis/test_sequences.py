"""The sequences: against numerical mixtures, and on Brownian motion."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from deploy.analysis.power import (
    fixed_power,
    last_look_power,
    units_needed,
    variance_needed,
)
from deploy.analysis.sequences import half_width, lower_distance, mixture_scale

VARIANCES = st.floats(1e-6, 1e3)
SCALES = st.floats(1e-2, 1e2)
ALPHAS = st.sampled_from([0.001, 0.01, 0.05, 0.2])


def mixture(x: float, variance: float, tau: float, one_sided: bool) -> float:
    """The likelihood ratio of x against 0, mixed over effects by numerical integration."""

    def ratio(effect: float) -> float:
        log = (2 * x * effect - effect**2) / (2 * variance)
        return math.exp(log) * float(stats.norm.pdf(effect, 0, tau))

    peak = x * tau**2 / (tau**2 + variance)
    width = 12 * math.sqrt(variance * tau**2 / (variance + tau**2))
    low = max(0.0, peak - width) if one_sided else peak - width
    total = integrate.quad(ratio, low, max(low, peak) + width, limit=200)[0]
    return 2 * float(total) if one_sided else float(total)


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
@pytest.mark.parametrize(("variance", "tau"), [(1.0, 1.0), (0.01, 1.0), (4.0, 0.5), (1e-4, 0.02)])
def test_two_sided_width_is_where_the_mixture_reaches_its_level(
    variance: float, tau: float, alpha: float
) -> None:
    half = half_width(variance, tau, alpha)
    assert mixture(half, variance, tau, False) == pytest.approx(1 / alpha, rel=1e-6)


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
@pytest.mark.parametrize(("variance", "tau"), [(1.0, 1.0), (0.01, 1.0), (4.0, 0.5), (1e-4, 0.02)])
def test_one_sided_distance_is_a_little_beyond_the_half_normal_mixture(
    variance: float, tau: float, alpha: float
) -> None:
    distance = lower_distance(variance, tau, alpha)
    assert mixture(distance, variance, tau, True) >= 1 / alpha
    assert mixture(0.85 * distance, variance, tau, True) < 1 / alpha


@given(VARIANCES, SCALES, ALPHAS)
def test_wider_than_a_fixed_horizon_and_narrower_with_more_data(
    variance: float, tau: float, alpha: float
) -> None:
    half = half_width(variance, tau, alpha)
    assert half > stats.norm.ppf(1 - alpha / 2) * math.sqrt(variance)
    assert lower_distance(variance, tau, alpha) > stats.norm.ppf(1 - alpha) * math.sqrt(variance)
    assert half_width(variance / 2, tau, alpha) < half
    # In other units of the metric the interval is the same interval.
    assert half_width(variance * 9, tau * 3, alpha) == pytest.approx(3 * half)
    assert half_width(0.0, tau, alpha) == lower_distance(0.0, tau, alpha) == 0.0


def test_brownian_motion_leaves_the_sequence_at_most_alpha() -> None:
    # Every look of a path of 2,000 steps, 4,000 paths; alpha 0.1 so that the bound is felt.
    rng, paths, alpha, tau = np.random.default_rng(0), 4000, 0.1, 0.5
    sums = rng.normal(size=(paths, 2000)).cumsum(axis=1)
    times = np.arange(1, 2001)
    half = np.array([half_width(1 / t, tau, alpha) for t in times])
    lower = np.array([lower_distance(1 / t, tau, alpha) for t in times])
    two_sided = int((np.abs(sums / times) > half).any(axis=1).sum())
    one_sided = int((sums / times > lower).any(axis=1).sum())
    bound = stats.binom.ppf(0.999, paths, alpha)
    assert two_sided <= bound
    assert one_sided <= bound
    # And it is no empty promise: the bound is nearly used up, and peeking at z exceeds it.
    assert two_sided > 0.4 * alpha * paths
    z = stats.norm.ppf(1 - alpha / 2)
    assert (np.abs(sums) / np.sqrt(times) > z).any(axis=1).mean() > 4 * alpha


def test_tau_is_the_smallest_effect_that_matters() -> None:
    tau = mixture_scale(0.02, 5.0)
    assert tau == pytest.approx(0.1)
    # At the time when tau is best the sequence is about as wide as tau, whatever alpha is usual.
    variance = tau**2 / 7.9
    assert half_width(variance, tau, 0.05) == pytest.approx(1.08 * tau, rel=0.01)
    widths = [half_width(variance, scale, 0.05) for scale in np.geomspace(tau / 10, tau * 10, 201)]
    assert half_width(variance, tau, 0.05) == pytest.approx(min(widths), rel=0.01)


@pytest.mark.parametrize(
    "bad",
    [
        (-1.0, 1.0, 0.05),
        (math.nan, 1.0, 0.05),
        (1.0, 0.0, 0.05),
        (1.0, math.inf, 0.05),
        (1.0, 1.0, 0.0),
        (1.0, 1.0, 1.0),
    ],
)
def test_bad_arguments_are_refused(bad: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="allowed"):
        half_width(*bad)
    with pytest.raises(ValueError, match="allowed"):
        lower_distance(*bad)


def test_power_is_that_of_the_textbook() -> None:
    # Means 1 apart in units of 4 standard deviations, 80 %, 5 %: n = 2 * 16 * 7.849 = 251.2 an arm.
    needed = units_needed(1.0, 16.0, (0.5, 0.5), 0.8, 0.05)
    assert needed == math.ceil(2 * 2 * 16 * (1.959964 + 0.841621) ** 2)
    # Unequal arms need more; a third arm does not change the two.
    assert units_needed(1.0, 16.0, (0.9, 0.1), 0.8, 0.05) == pytest.approx(needed / 0.36, rel=1e-2)
    assert units_needed(1.0, 16.0, (0.3, 0.3), 0.8, 0.05) == needed
    # A sequence that may be looked at any time needs more than one look.
    assert units_needed(1.0, 16.0, (0.5, 0.5), 0.8, 0.05, tau=1.0) > 1.5 * needed


@given(st.floats(0.01, 10), st.sampled_from([0.5, 0.8, 0.95]), ALPHAS)
def test_power_inverts(effect: float, power: float, alpha: float) -> None:
    variance = variance_needed(effect, power, alpha)
    assert fixed_power(effect, variance, alpha) == pytest.approx(power, rel=1e-6)
    assert fixed_power(-effect, variance, alpha) == pytest.approx(power, rel=1e-6)
    variance = variance_needed(effect, power, alpha, tau=effect)
    assert last_look_power(effect, variance, effect, alpha) == pytest.approx(power, rel=1e-6)


def test_power_refuses_what_makes_no_sense() -> None:
    for effect, power in ((0.0, 0.8), (1.0, 0.01), (1.0, 1.0)):
        with pytest.raises(ValueError, match="allowed"):
            variance_needed(effect, power, 0.05)
