"""Totals by unit: against a dictionary, in any order of batches."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deploy.analysis.units import Lists, UnitIndex, UnitTotals, hash_units, join_lists, sum_lists

ROW = st.tuples(
    st.integers(0, 6), st.integers(0, 40), st.integers(0, 1), st.integers(0, 2), st.integers(0, 9)
)


def columns(rows: list[tuple[int, ...]]) -> Lists:
    table = np.array(rows, np.int64).reshape(-1, 5)
    sums = np.stack([np.ones(len(table)), table[:, 4]], axis=1)
    return Lists(table[:, 0], table[:, 1], table[:, 2], table[:, 3], sums)


@given(st.lists(ROW, max_size=60), st.integers(1, 5))
def test_totals_are_those_of_a_dictionary(rows: list[tuple[int, ...]], pieces: int) -> None:
    # Slots of ten ms, in the order of time as ``collect`` brings them; pieces within a slot.
    rows = sorted(rows, key=lambda row: row[1] // 10)
    totals = UnitTotals(stages=2, arms=3, columns=2)
    for slot in sorted({row[1] // 10 for row in rows}):
        here = [row for row in rows if row[1] // 10 == slot]
        parts = []
        for piece in range(pieces):
            lists = columns(here[piece::pieces])
            parts.append(sum_lists(lists, 2, 3, np.zeros(len(lists), np.int64))[0])
        totals.add(join_lists([part for part in parts if len(part)], 2))
    wanted: dict[tuple[int, int, int], list[float]] = defaultdict(lambda: [0.0, 0.0])
    arms: dict[tuple[int, int], set[int]] = defaultdict(set)
    first: dict[int, tuple[int, int]] = {}
    for unit, time, stage, arm, value in rows:
        wanted[unit, stage, arm][0] += 1
        wanted[unit, stage, arm][1] += value
        arms[unit, stage].add(arm)
        first[unit] = min(first.get(unit, (time, arm)), (time, arm))
    got = totals.rows
    keys = list(zip(got.unit.tolist(), got.stage.tolist(), got.arm.tolist()))
    assert keys == sorted(wanted)
    assert got.sums.tolist() == [wanted[key] for key in keys]
    crossed = {unit for (unit, _), seen in arms.items() if len(seen) > 1}
    assert set(np.flatnonzero(totals.crossed).tolist()) == crossed
    assert set(totals.counted().unit.tolist()) == {unit for unit, _, _ in wanted} - crossed
    for unit, (time, arm) in first.items():
        assert (totals.first_time[unit], totals.first_arm[unit]) == (time, arm)


@given(st.lists(st.lists(st.text(max_size=3), max_size=20), max_size=8))
def test_index_numbers_units_once(batches: list[list[str]]) -> None:
    index, numbers = UnitIndex(), {}
    for batch in batches:
        given_numbers = index.numbers(hash_units(batch)).tolist()
        for unit, number in zip(batch, given_numbers):
            assert numbers.setdefault(unit, number) == number
    assert sorted(set(numbers.values())) == list(range(len(index)))
    assert len(set(numbers.values())) == len(numbers)


def test_a_unit_in_two_arms_by_a_ramp_has_not_crossed() -> None:
    totals = UnitTotals(stages=2, arms=2, columns=2)
    totals.add(columns([(0, 1, 0, 0, 5), (1, 1, 0, 0, 5)]))
    totals.add(columns([(0, 11, 1, 1, 5), (1, 11, 1, 0, 5), (1, 12, 1, 1, 5)]))
    assert totals.crossed.tolist() == [False, True]
    assert totals.first_stage.tolist() == [0, 0]


def test_rows_come_by_slot() -> None:
    lists = columns([(1, 25, 0, 0, 1), (0, 3, 0, 0, 2), (1, 21, 0, 0, 4), (1, 1, 0, 1, 8)])
    rows, slots = sum_lists(lists, 1, 3, lists.time // 10)
    assert slots.tolist() == [0, 0, 2]
    assert rows.time.tolist() == [3, 1, 21]
    assert rows.sums[:, 1].tolist() == [2, 8, 5]
    nothing, none = sum_lists(columns([]), 1, 3, np.empty(0, np.int64))
    assert len(nothing) == len(none) == 0
