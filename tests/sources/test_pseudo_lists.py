"""Pseudo-lists partition the exposures: each is in one list or counted as dropped."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.sources.base import Tally
from training.sources.pseudo_lists import cut_lists

exposures = st.lists(
    st.tuples(st.integers(0, 3), st.integers(-1, 2), st.integers(0, 6)), max_size=60
)


@given(exposures, st.integers(2, 5))
def test_partition(drawn: list[tuple[int, int, int]], size: int) -> None:
    drawn = sorted(drawn, key=lambda row: row[:2])  # by user, then by part of time
    table = np.array(drawn, np.int64).reshape(-1, 3)
    user, segment, item = table.T
    tally = Tally()
    lists = cut_lists(user, item, segment, size, tally)
    used = lists.ravel()
    assert len(set(used.tolist())) == len(used)
    assert len(used) + sum(tally.dropped.values()) == int((segment >= 0).sum())
    for row in lists:
        assert len(set(user[row])) == len(set(segment[row])) == 1
        assert segment[row[0]] >= 0
        assert len(set(item[row])) == size
        assert (np.diff(row) > 0).all()


def test_by_hand() -> None:
    """User 1 shows a b a c | d, with the second a left out; user 2 has too few."""
    tally = Tally()
    lists = cut_lists(
        user=np.array([1, 1, 1, 1, 1, 2]),
        item=np.array([10, 11, 10, 12, 13, 10]),
        segment=np.zeros(6, int),
        size=3,
        tally=tally,
    )
    assert lists.tolist() == [[0, 1, 3]]
    assert sorted(tally.dropped.values()) == [1, 2]


def test_a_list_crosses_no_segment() -> None:
    lists = cut_lists(
        user=np.ones(4, int),
        item=np.arange(4),
        segment=np.array([0, 0, 1, 1]),
        size=2,
        tally=Tally(),
    )
    assert lists.tolist() == [[0, 1], [2, 3]]
    tally = Tally()
    assert not len(cut_lists(np.ones(4, int), np.arange(4), np.arange(4), 2, tally))
    assert sum(tally.dropped.values()) == 4
