"""Counts of the past against loops that cannot be wrong."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.sources.history import Counts, History, out_of_fold, running

rows = st.lists(
    st.tuples(st.integers(-3, 5), st.integers(0, 1), st.integers(0, 2)), min_size=0, max_size=40
)


def columns(drawn: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = np.array(drawn, np.int64).reshape(-1, 3)
    return table[:, 0], table[:, 1].astype(float), table[:, 2]


@given(rows, st.lists(st.integers(-4, 7), max_size=10))
def test_history(drawn: list[tuple[int, int, int]], asked: list[int]) -> None:
    keys, labels, _ = columns(drawn)
    counts = History(keys, labels).of(np.array(asked, np.int64))
    for index, key in enumerate(asked):
        mine = [label for k, label, _ in drawn if k == key]
        assert (counts.times[index], counts.total[index]) == (len(mine), sum(mine))


@given(rows)
def test_running_sees_earlier_rows_only(drawn: list[tuple[int, int, int]]) -> None:
    keys, labels, _ = columns(drawn)
    counts = running(keys, labels)
    for index, (key, _, _) in enumerate(drawn):
        before = [label for k, label, _ in drawn[:index] if k == key]
        assert (counts.times[index], counts.total[index]) == (len(before), sum(before))


@given(rows)
def test_out_of_fold_sees_other_folds_only(drawn: list[tuple[int, int, int]]) -> None:
    keys, labels, folds = columns(drawn)
    counts = out_of_fold(keys, labels, folds)
    for index, (key, _, fold) in enumerate(drawn):
        others = [label for k, label, f in drawn if k == key and f != fold]
        assert (counts.times[index], counts.total[index]) == (len(others), sum(others))


def test_rate_by_hand() -> None:
    counts = Counts(times=np.array([0.0, 4.0]), total=np.array([0.0, 3.0]))
    np.testing.assert_allclose(counts.rate(0.25, 2.0), [0.25, 3.5 / 6])
