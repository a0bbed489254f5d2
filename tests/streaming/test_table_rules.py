"""The rules of the feedback table, by columns and row by row."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.feedback_table import table_schema
from streaming.feedback_table.rules import Window, check_batch
from streaming.feedback_table.validation import RULES
from tests.streaming.feedback_tables import MINUTE, NOON, SPEC, rows_of, slate
from tests.streaming.row_rules import broken_rules

WINDOW = Window(before=MINUTE, after=10 * MINUTE)
TIMES = (
    *(None, 0, NOON, NOON + 5 * MINUTE),
    *(NOON - MINUTE, NOON - MINUTE - 1, NOON + 10 * MINUTE, NOON + 10 * MINUTE + 1),
)
NUMBERS = (None, 0.0, 1.0, -0.5, 2.5, math.nan, math.inf, -math.inf, 1e-7)
TEXTS = (None, "", "i0-0", "i0-1", "other")

# Values of a nullable list, and of one that the schema says is always there.
lists = st.lists
ANY: dict[str, st.SearchStrategy[Any]] = {
    "request_id": st.sampled_from(("", "q")),
    "user": st.sampled_from(("", "u")),
    "time": st.sampled_from((0, NOON, NOON + 1)),
    "candidates": lists(st.sampled_from(TEXTS), max_size=4),
    "scores": st.none() | lists(st.sampled_from(NUMBERS), max_size=4),
    "exposed": lists(st.sampled_from((None, -1, 0, 1, 2, 3)), max_size=4),
    "log_prob": st.none() | lists(st.sampled_from(NUMBERS), max_size=3),
    "temperature": st.sampled_from(NUMBERS),
    "user__age": st.sampled_from(NUMBERS),
    "item__colour": st.none() | lists(st.sampled_from(TEXTS), max_size=4),
    "item__price": st.none() | lists(st.sampled_from(NUMBERS), max_size=4),
    "feedback__click": st.none() | lists(st.sampled_from(NUMBERS), max_size=3),
    "feedback_time__click": st.none() | lists(st.sampled_from(TIMES), max_size=3),
    "feedback__watch": st.none() | lists(st.sampled_from(NUMBERS), max_size=3),
    "feedback_time__watch": st.none() | lists(st.sampled_from(TIMES), max_size=3),
    "day": st.sampled_from(("2023-11-15", "1970-01-01", "")),
}


@st.composite
def rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Right rows with up to three columns of each replaced by anything."""
    made = rows_of([slate(number) for number in range(draw(st.integers(1, 5)))])
    for row in made:
        for name in draw(st.lists(st.sampled_from(sorted(ANY)), max_size=3, unique=True)):
            row[name] = draw(ANY[name])
    return made


def found(made: list[dict[str, Any]], window: Window) -> list[set[str]]:
    """Broken rules of each row; the batch is a slice, as those of a file are."""
    extra = rows_of([slate(100)])
    table = pa.Table.from_pylist([*extra, *made, *extra], schema=table_schema(SPEC))
    batch = table.combine_chunks().to_batches()[0].slice(1, len(made))
    broken: dict[int, set[str]] = defaultdict(set)
    for rule, wrong in check_batch(batch, SPEC, window):
        assert rule in RULES
        for at in wrong.nonzero()[0]:
            broken[int(at)].add(rule)
    return [broken[at] for at in range(len(made))]


@settings(max_examples=300)
@given(rows(), st.sampled_from((WINDOW, Window(before=0, after=None))))
def test_columns_find_what_rows_find(made: list[dict[str, Any]], window: Window) -> None:
    assert found(made, window) == [broken_rules(row, SPEC, window) for row in made]


def test_right_rows_break_nothing() -> None:
    assert found(rows_of([slate(number) for number in range(30)]), WINDOW) == [set()] * 30


@pytest.mark.parametrize(
    ("late", "is_broken"),
    [
        (-MINUTE - 1, True),
        (-MINUTE, False),
        (0, False),
        (10 * MINUTE, False),
        (10 * MINUTE + 1, True),
    ],
)
def test_the_window_holds_both_its_ends(late: int, is_broken: bool) -> None:
    (row,) = rows_of([slate(0)])
    row["feedback_time__click"] = [NOON + late, None]
    assert found([row], WINDOW) == [{"feedback_outside_window"} if is_broken else set()]
