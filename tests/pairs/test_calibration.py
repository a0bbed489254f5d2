"""Whether an evaluator is as sure as it may be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from training.pairs.calibration import calibration_slope


@pytest.mark.parametrize("slope", [0.6, 1.0, 1.7])
def test_the_slope_is_that_of_logistic_regression(slope: float) -> None:
    rng = np.random.default_rng(0)
    said = rng.normal(-1, 1.5, 4000)
    label = (rng.random(4000) < 1 / (1 + np.exp(-(slope * said - 0.4)))).astype(float)
    oracle = LogisticRegression(C=1e6).fit(said[:, None], label)
    found = calibration_slope(said, label, binary=True)
    assert found == pytest.approx(float(oracle.coef_[0, 0]), rel=1e-2)
    assert found == pytest.approx(slope, abs=0.1)


def test_the_slope_of_values_is_that_of_least_squares() -> None:
    rng = np.random.default_rng(1)
    said = rng.normal(size=5000)
    label = 0.3 * said + 2.0 + rng.normal(size=5000) * 0.1
    found = calibration_slope(said, label, binary=False)
    assert found == pytest.approx(float(np.polyfit(said, label, 1)[0]), rel=1e-2)


@given(
    st.lists(st.floats(-60, 60), min_size=1, max_size=30),
    st.sampled_from([0.0, 1.0, None]),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_there_is_always_an_answer(
    said: list[float], all_one: float | None, binary: bool, seed: int
) -> None:
    """Labels that are all alike, expectations that are, a single list: never NaN."""
    x = np.array(said)
    label = np.random.default_rng(seed).random(len(x)).round()
    assert np.isfinite(calibration_slope(x, label if all_one is None else 0 * x + all_one, binary))
