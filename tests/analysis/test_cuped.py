"""CUPED: against least squares, and where the past says all there is to say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.analysis import cuped
from deploy.analysis.ratio import TwoArms, compare


def arms_of(treated: np.ndarray) -> TwoArms:
    return TwoArms(np.arange(len(treated)), np.zeros(len(treated), np.int64), treated)


@given(st.integers(0, 2**32), st.floats(0, 3))
def test_is_the_regression_on_the_past(seed: int, strength: float) -> None:
    # With equal arms and one list a unit, theta is that of least squares within the arms.
    rng = np.random.default_rng(seed)
    treated = np.arange(200) % 2 == 0
    past = rng.normal(size=200)
    now = 5 + strength * past + rng.normal(size=200) + treated
    found = compare(arms_of(treated), now, np.ones(200))
    before = cuped.imbalance(arms_of(treated), past, np.ones(200))
    assert found is not None
    assert before is not None
    adjusted = cuped.adjust(found[0], before)
    design = np.stack([np.ones(200), treated, past], axis=1)
    theirs, *_ = np.linalg.lstsq(design, now, rcond=None)
    assert adjusted.value == pytest.approx(theirs[1], rel=1e-9)
    within = [np.where(treated, v - v[treated].mean(), v - v[~treated].mean()) for v in (now, past)]
    rho = np.corrcoef(within)[0, 1]
    assert cuped.variance_reduction(found[0], adjusted) == pytest.approx(rho**2, rel=1e-9)
    assert adjusted.variance <= found[0].variance


def test_a_past_that_says_all_leaves_the_effect_alone() -> None:
    # Arms of unequal size and unlike users, everybody twice as good in the arm but for chance.
    rng = np.random.default_rng(0)
    treated = rng.random(3000) < 0.3
    past = rng.gamma(2, 1, 3000) + 0.1 * treated
    now = past + np.where(treated, 0.5, 0.0)
    arms = arms_of(treated)
    absolute, relative = compare(arms, now, np.ones(3000)) or (None, None)
    before = cuped.imbalance(arms, past, np.ones(3000))
    assert absolute is not None
    assert relative is not None
    assert before is not None
    adjusted = cuped.adjust(absolute, before)
    lifted = cuped.adjust_relative(relative, absolute, adjusted, before)
    assert adjusted.value == pytest.approx(0.5)
    # Over the mean that the control would have had with everybody's past.
    assert lifted.value == pytest.approx(0.5 / past.mean())
    assert cuped.variance_reduction(absolute, adjusted) == pytest.approx(1)
    assert lifted.variance < 0.05 * relative.variance


def test_the_covariate_is_the_past_beyond_its_share() -> None:
    sums, sizes = np.array([3.0, 1, 0, 0]), np.array([2.0, 2, 4, 0])
    past = cuped.covariate(sums, sizes)
    assert past.tolist() == [2.0, 0.0, -2.0, 0.0]
    assert cuped.covariate(np.zeros(3), np.zeros(3)).tolist() == [0, 0, 0]
    arms = arms_of(np.array([True, True, False, False]))
    assert cuped.imbalance(arms, np.zeros(4), np.ones(4)) is None


def test_no_effect_stays_none_whatever_the_past() -> None:
    rng, values, variances = np.random.default_rng(1), [], []
    for _ in range(400):
        taste = rng.lognormal(0, 1, 600)
        treated = rng.random(600) < 0.5
        past = cuped.covariate(rng.poisson(taste).astype(float), np.ones(600))
        sizes = rng.poisson(taste) + 1.0
        found = compare(arms_of(treated), rng.poisson(sizes * taste).astype(float), sizes)
        before = cuped.imbalance(arms_of(treated), past, sizes)
        assert found is not None
        assert before is not None
        adjusted = cuped.adjust(found[0], before)
        values.append(adjusted.value)
        variances.append(adjusted.variance)
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(400)
    assert np.mean(variances) == pytest.approx(np.var(values), rel=0.25)
