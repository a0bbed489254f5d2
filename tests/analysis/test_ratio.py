"""Ratio metrics: against Welch's t-test, the jackknife, and the truth in simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from deploy.analysis import fixed
from deploy.analysis.ratio import TwoArms, compare, contrast, ratio_mean, stage_shares


def one_stage(treated: np.ndarray) -> TwoArms:
    return TwoArms(np.arange(len(treated)), np.zeros(len(treated), np.int64), treated)


def test_is_welch_where_each_unit_has_one_list() -> None:
    rng = np.random.default_rng(0)
    treated = np.arange(300) % 3 == 0
    values = rng.exponential(2, 300) + 0.1 * treated
    found = compare(one_stage(treated), values, np.ones(300))
    assert found is not None
    theirs = stats.ttest_ind(values[treated], values[~treated], equal_var=False)
    interval = theirs.confidence_interval(0.95)
    assert fixed.p_value(found[0]) == pytest.approx(theirs.pvalue, rel=1e-9)
    assert fixed.interval(found[0], 0.05) == pytest.approx((interval.low, interval.high), rel=1e-9)
    mean = ratio_mean(values, np.ones(300))
    one = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert fixed.mean_interval(mean, 0.05) == pytest.approx((one.low, one.high), rel=1e-9)


def test_variance_is_that_of_the_jackknife() -> None:
    rng = np.random.default_rng(1)
    sizes = rng.poisson(3, 4000) + 1.0
    sums = rng.gamma(1, sizes)
    n, total_s, total_n = len(sums), sums.sum(), sizes.sum()
    without = (total_s - sums) / (total_n - sizes)
    jackknife = (n - 1) / n * ((without - without.mean()) ** 2).sum()
    assert ratio_mean(sums, sizes).variance == pytest.approx(jackknife, rel=1e-3)
    treated = rng.random(n) < 0.3
    found = compare(one_stage(treated), sums, sizes)
    assert found is not None
    assert found[1] is not None
    side_s = [sums[treated == side].sum() for side in (False, True)]
    side_n = [sizes[treated == side].sum() for side in (False, True)]
    left = np.stack([np.where(treated == side, side_s[side] - sums, side_s[side])
                     / np.where(treated == side, side_n[side] - sizes, side_n[side])
                     for side in (False, True)])  # fmt: skip
    for found_one, theirs in zip(found, (left[1] - left[0], left[1] / left[0] - 1)):
        spread = 0.0
        for side in (False, True):
            own = theirs[treated == side]
            spread += (len(own) - 1) / len(own) * ((own - own.mean()) ** 2).sum()
        assert found_one.variance == pytest.approx(spread, rel=5e-3)


@given(st.integers(0, 2**32), st.floats(0.01, 100), st.floats(0.01, 100))
def test_scales_with_the_unit_of_feedback_and_of_lists(seed: int, a: float, b: float) -> None:
    rng = np.random.default_rng(seed)
    treated = np.arange(60) % 2 == 0
    sums, sizes = rng.gamma(9, 1, 60), rng.integers(1, 9, 60).astype(float)
    plain = compare(one_stage(treated), sums, sizes)
    scaled = compare(one_stage(treated), a * sums, b * sizes)
    assert plain is not None
    assert scaled is not None
    assert scaled[0].value == pytest.approx(plain[0].value * a / b, rel=1e-6, abs=1e-9)
    assert scaled[0].variance == pytest.approx(plain[0].variance * (a / b) ** 2, rel=1e-6)
    if plain[1] is not None and scaled[1] is not None:
        assert scaled[1].value == pytest.approx(plain[1].value, rel=1e-6, abs=1e-9)
        assert scaled[1].variance == pytest.approx(plain[1].variance, rel=1e-6)


def test_intervals_cover_the_truth_on_skewed_ratios() -> None:
    # Heavy users watch longer: sums and sizes are correlated, log-normal and unequal in number.
    rng, repeats, covered, naive = np.random.default_rng(2), 1500, [0, 0, 0], 0
    for _ in range(repeats):
        n = 800
        taste = rng.lognormal(0, 0.5, n)
        sizes = 1.0 + rng.poisson(2 * taste)
        treated = rng.random(n) < 0.4
        rate = taste * np.where(treated, 1.2, 1.0)
        sums = rng.gamma(sizes * 0.5, 2 * rate)
        # E S / E N with E[N taste] = e + 2 e2, E N = 1 + 2 e, of the log-normal's moments.
        e, e2 = np.exp(0.5**2 / 2), np.exp(2 * 0.5**2)
        control = (e + 2 * e2) / (1 + 2 * e)
        found = compare(one_stage(treated), sums, sizes)
        assert found is not None
        assert found[1] is not None
        low, high = fixed.interval(found[0], 0.05)
        covered[0] += low <= 0.2 * control <= high
        low, high = fixed.interval(found[1], 0.05)
        covered[1] += low <= 0.2 <= high
        bounds = fixed.mean_interval(ratio_mean(sums[~treated], sizes[~treated]), 0.05)
        assert bounds is not None
        covered[2] += bounds[0] <= control <= bounds[1]
        # Lists taken as independent: each has the spread of its own and hides the users'.
        spread = np.sqrt((sums[~treated] ** 2 / sizes[~treated]).sum()) / sizes[~treated].sum()
        naive += abs(sums[~treated].sum() / sizes[~treated].sum() - control) <= 1.3 * spread
    # Skewed data cost a little coverage at 320 units: 93 to 96 % is what there is to be had.
    for one in covered:
        assert 0.925 <= one / repeats <= 0.97
    assert naive / repeats < 0.925


def test_stages_are_weighed_so_that_a_ramp_is_no_effect() -> None:
    # Mondays click twice as much, and the arm was small on Monday: totals would show -30 %.
    rng = np.random.default_rng(3)
    stage = np.repeat([0, 1], 20_000)
    treated = rng.random(40_000) < np.where(stage == 0, 0.1, 0.5)
    sums = rng.poisson(np.where(stage == 0, 2.0, 1.0)).astype(float)
    arms = TwoArms(np.arange(40_000), stage, treated)
    found = compare(arms, sums, np.ones(40_000))
    assert found is not None
    assert found[1] is not None
    assert abs(found[1].value) < 3 * np.sqrt(found[1].variance)
    assert sums[treated].mean() / sums[~treated].mean() < 0.9
    shares = stage_shares(arms, np.ones(40_000))
    assert shares[0] == pytest.approx(0.09 / (0.09 + 0.25), rel=0.05)
    assert sum(shares.values()) == pytest.approx(1)


def test_variance_of_units_that_a_ramp_moved() -> None:
    # Users keep their tastes over both stages; those moved count in both arms, once each stage.
    rng, values, variances = np.random.default_rng(4), [], []
    for _ in range(600):
        taste = rng.lognormal(0, 1, 500)
        bucket = rng.random(500)
        unit = np.tile(np.arange(500), 2)
        stage = np.repeat([0, 1], 500)
        treated = np.concatenate([bucket < 0.2, bucket < 0.5])
        sums = rng.poisson(4 * np.tile(taste, 2)).astype(float)
        found = compare(TwoArms(unit, stage, treated), sums, np.full(1000, 4.0))
        assert found is not None
        values.append(found[0].value)
        variances.append(found[0].variance)
    assert np.mean(variances) == pytest.approx(np.var(values), rel=0.2)
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(600)


def test_what_cannot_be_said_is_not_said() -> None:
    ones = np.ones(4)
    assert np.isnan(ratio_mean(np.empty(0), np.empty(0)).value)
    assert np.isnan(ratio_mean(np.ones(1), np.ones(1)).variance)
    assert fixed.mean_interval(ratio_mean(np.ones(1), np.ones(1)), 0.05) is None
    assert compare(one_stage(np.array([True, False, False, False])), ones, ones) is None
    nothing = compare(one_stage(np.array([True, True, False, False])), 0 * ones, ones)
    assert nothing is not None
    assert nothing[1] is None  # relative to a mean of zero
    assert fixed.p_value(nothing[0]) == 1.0
    assert fixed.interval(nothing[0], 0.05) == (0.0, 0.0)
    sure = compare(one_stage(np.array([True, True, False, False])), np.array([2.0, 2, 1, 1]), ones)
    assert sure is not None
    assert fixed.p_value(sure[0]) == 0.0


def test_contrast_is_a_difference_that_needs_no_ratio() -> None:
    rng = np.random.default_rng(5)
    treated = np.arange(400) % 2 == 0
    sums, sizes = rng.poisson(0.05, 400).astype(float), np.ones(400)
    found = contrast(one_stage(treated), sums, sizes, 1.1)
    assert found is not None
    sides = sums[treated], sums[~treated]
    assert found.value == pytest.approx(sides[0].mean() - 1.1 * sides[1].mean())
    spread = sides[0].var(ddof=1) / 200 + 1.1**2 * sides[1].var(ddof=1) / 200
    assert found.variance == pytest.approx(spread)
