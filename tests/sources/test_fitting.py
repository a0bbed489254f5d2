"""Streaming moments against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.sources.fitting import Moments

numbers = st.floats(-1e6, 1e6)


@given(st.lists(st.lists(numbers, max_size=8), max_size=8))
def test_batches_do_not_matter(batches: list[list[float]]) -> None:
    moments = Moments()
    for batch in batches:
        moments.add(np.array(batch))
    values = np.array([value for batch in batches for value in batch])
    assert moments.count == len(values)
    if len(values):
        scale = 1 + np.abs(values).max()
        assert moments.mean == pytest.approx(values.mean(), abs=1e-9 * scale)
        if values.std() > 1e-6 * scale:
            assert moments.std == pytest.approx(values.std(), rel=1e-6)


@pytest.mark.parametrize("values", [[], [3.0], [1e12] * 5, [0.1] * 3])
def test_no_spread_is_a_deviation_of_one(values: list[float]) -> None:
    moments = Moments()
    moments.add(np.array(values))
    assert moments.std == 1.0
