"""Rates, intervals and duplicates, against counting by hand."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from contracts.feedback_table import table_schema
from streaming.feedback_table.duplicates import duplicates
from streaming.feedback_table.rates import RateCounter, wilson
from tests.streaming.feedback_tables import SPEC, rows_of, slate


def batches(rows: list[dict[str, Any]], size: int) -> list[pa.RecordBatch]:
    table = pa.Table.from_pylist(rows, schema=table_schema(SPEC)).combine_chunks()
    return table.to_batches(max_chunksize=size)


@st.composite
def rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    made = rows_of([slate(draw(st.integers(0, 40))) for _ in range(draw(st.integers(1, 12)))])
    for row in made:
        value = st.sampled_from((None, 0.0, 1.0, 2.5))
        row["exposed"] = list(range(draw(st.integers(0, 4))))
        for kind in ("click", "watch"):
            if draw(st.booleans()):
                values = st.none() | st.lists(value, max_size=4)
                row[f"feedback__{kind}"] = draw(values)
    return made


@given(rows(), st.integers(1, 5))
def test_rates_are_what_counting_gives(made: list[dict[str, Any]], size: int) -> None:
    counter = RateCounter(SPEC)
    for batch in batches(made, size):
        counter.add(batch)
    counts: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0, 0.0])
    for row in made:
        for kind in ("click", "watch"):
            values = row[f"feedback__{kind}"]
            if values is not None and len(values) != len(row["exposed"]):
                continue  # whose feedback it is nobody knows
            for place, value in enumerate(values or [None] * len(row["exposed"])):
                for of in (row["day"], str(place + 1)):
                    counts[kind, of][0] += 1
                    counts[kind, of][1] += (value or 0) > 0
                    counts[kind, of][2] += value or 0
    found = {
        (rate.kind, rate.of): [rate.shown, rate.given, rate.mean * rate.shown]
        for rate in (*counter.by_day(), *counter.by_position())
        if rate.shown
    }
    assert {key: pytest.approx(value) for key, value in counts.items()} == found


@given(st.integers(0, 300), st.integers(1, 300))
def test_intervals_are_scipys(given_: int, shown: int) -> None:
    given_ = min(given_, shown)
    ours = wilson(given_, shown)
    theirs = binomtest(given_, shown).proportion_ci(0.95, method="wilson")
    assert ours == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_nothing_shown_tells_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert RateCounter(SPEC).by_position() == RateCounter(SPEC).by_day() == ()


@given(st.lists(st.sampled_from("abcdefghij") | st.text(max_size=2)), st.integers(1, 6))
def test_duplicates_in_any_number_of_passes(ids: list[str], rows_a_pass: int) -> None:
    schema = pa.schema([("request_id", pa.string())])
    table = pa.table({"request_id": ids}, schema=schema)

    surplus, named = duplicates(
        lambda: table.to_batches(max_chunksize=3), len(ids), 5, rows_a_pass=rows_a_pass
    )
    counts = Counter(ids)
    twice = {one for one, count in counts.items() if count > 1}
    assert surplus == len(ids) - len(counts)
    assert set(named) <= twice
    assert len(named) == min(5, len(twice))
