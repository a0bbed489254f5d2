"""Correcting p-values for their number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.multiplicity import holm


def test_holm() -> None:
    theirs = [0.04, 0.01, 0.03]  # by hand: 0.01 * 3, then 0.03 * 2, then max with 0.04
    assert holm(theirs) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_it_lies_between_no_correction_and_bonferronis_and_keeps_the_order(p: list[float]) -> None:
    corrected = holm(p)
    for one, other in zip(p, corrected):
        assert one <= other <= min(1.0, one * len(p))
    ranked = [corrected[index] for index in sorted(range(len(p)), key=p.__getitem__)]
    assert ranked == sorted(ranked)
