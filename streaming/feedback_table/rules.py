"""What a row of the feedback table must hold. Each rule says which rows of a batch break it.

Rules are pure functions of Arrow columns: nothing here knows where a table lies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from contracts.features import FeatureSpec
from contracts.feedback_table import DAY
from contracts.slate_columns import item_columns, user_columns

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

#: A log-probability above this is more than rounding.
_ROUNDING = 1e-6
_DAY_MS = 86_400_000


@dataclass(frozen=True)
class Window:
    """When feedback counts, in ms from the exposure; ``after`` None: as late as may be."""

    before: int
    after: int | None


@dataclass(frozen=True)
class Lists:
    """A list column taken apart: lengths [S], and of each value its row and place in the list."""

    values: pa.Array
    lengths: Ints
    rows: Ints
    places: Ints

    @classmethod
    def of(cls, batch: pa.RecordBatch, name: str) -> Lists:
        column = batch.column(name)
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
        rows = np.repeat(np.arange(len(lengths)), lengths)
        starts = np.cumsum(lengths) - lengths
        return cls(column.flatten(), lengths, rows, np.arange(len(rows)) - starts[rows])

    def of_rows(self, wrong: Bools) -> Bools:
        """Rows [S] that hold a value for which ``wrong`` is true."""
        found = np.zeros(len(self.lengths), bool)
        found[self.rows[wrong]] = True
        return found

    def numbers(self) -> npt.NDArray[np.float64]:
        """The values as doubles, NaN for null."""
        values: npt.NDArray[np.float64] = (
            pc.cast(self.values, pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
        )
        return values

    def valid(self) -> Bools:
        found: Bools = self.values.is_valid().to_numpy(zero_copy_only=False)
        return found

    def twice(self) -> Bools:
        """Rows [S] whose list holds a value more than once."""
        codes = pc.fill_null(self.values.dictionary_encode().indices, -1).to_numpy()
        order = np.lexsort((codes, self.rows))
        rows, codes = self.rows[order], codes[order]
        same = (rows[1:] == rows[:-1]) & (codes[1:] == codes[:-1])
        found = np.zeros(len(self.lengths), bool)
        found[rows[1:][same]] = True
        return found


def check_batch(
    batch: pa.RecordBatch, spec: FeatureSpec, window: Window
) -> Iterator[tuple[str, Bools]]:
    """Name of a rule and the rows [S] that break it; a rule may come more than once."""
    exposed, candidates = Lists.of(batch, "exposed"), Lists.of(batch, "candidates")
    yield "missing", _missing(batch, candidates, exposed)
    yield "candidate_twice", candidates.twice()
    yield "exposed_twice", exposed.twice()
    index = exposed.numbers()  # null is NaN: in no range
    within = (index >= 0) & (index < candidates.lengths[exposed.rows])
    yield "exposed_out_of_range", exposed.of_rows(~within)
    for name in ("scores", *(f"item__{name}" for name in item_columns(spec))):
        yield from _aligned(batch, name, candidates, "candidates_unaligned")
    yield from _aligned(batch, "log_prob", exposed, "log_prob")
    yield "log_prob", _wrong_numbers(batch, "log_prob", lambda x: x > _ROUNDING, nulls=False)
    for name in ("scores", *(f"item__{one.name}" for one in spec.item.dense)):
        if name in batch.schema.names:
            yield "not_finite", _wrong_numbers(batch, name)
    for name in user_columns(spec):
        if pa.types.is_floating(batch.column(f"user__{name}").type):
            yield "not_finite", _not_finite(batch.column(f"user__{name}"))
    temperature = batch.column("temperature")
    negative = pc.fill_null(pc.less(temperature, 0), False).to_numpy(zero_copy_only=False)
    yield "exploration", _not_finite(temperature) | negative
    yield "day", _wrong_day(batch)
    for kind in spec.feedback:
        yield from _check_feedback(batch, kind.kind, kind.type == "binary", exposed, window)


def _missing(batch: pa.RecordBatch, candidates: Lists, exposed: Lists) -> Bools:
    missing: Bools = (candidates.lengths == 0) | (exposed.lengths == 0)
    missing |= candidates.of_rows(~candidates.valid())
    for name in ("request_id", "user"):
        empty = pc.equal(batch.column(name), "")
        missing |= pc.fill_null(empty, True).to_numpy(zero_copy_only=False)
    missing |= batch.column("time").is_null().to_numpy(zero_copy_only=False)
    return missing


def _check_feedback(
    batch: pa.RecordBatch, kind: str, is_binary: bool, exposed: Lists, window: Window
) -> Iterator[tuple[str, Bools]]:
    value_name, time_name = f"feedback__{kind}", f"feedback_time__{kind}"
    for name in (value_name, time_name):
        yield from _aligned(batch, name, exposed, "feedback_unaligned")

    def refused(value: npt.NDArray[np.float64]) -> Bools:
        wrong: Bools = (value != 0) & (value != 1) if is_binary else value < 0
        return wrong

    yield "feedback_value", _wrong_numbers(batch, value_name, refused)
    values, times = Lists.of(batch, value_name), Lists.of(batch, time_name)
    same = values.lengths == times.lengths
    apart = values.valid()[same[values.rows]] != times.valid()[same[times.rows]]
    rows = values.rows[same[values.rows]]
    found = ~same
    found[rows[apart]] = True
    yield "feedback_without_time", found

    shown = pc.fill_null(batch.column("time"), 0).to_numpy()[times.rows]
    when = pc.fill_null(times.values, 0).to_numpy()
    early = shown - when > window.before
    late = np.zeros_like(early) if window.after is None else when - shown > window.after
    yield "feedback_outside_window", times.of_rows(times.valid() & (early | late))


def _aligned(
    batch: pa.RecordBatch, name: str, like: Lists, rule: str
) -> Iterator[tuple[str, Bools]]:
    """Rows whose list is of another length than ``like``; a list that is null has no length."""
    lists = Lists.of(batch, name)
    is_null = batch.column(name).is_null().to_numpy(zero_copy_only=False)
    yield rule, (lists.lengths != like.lengths) & ~is_null


def _wrong_numbers(
    batch: pa.RecordBatch,
    name: str,
    refused: Callable[[npt.NDArray[np.float64]], Bools] | None = None,
    *,
    nulls: bool = True,
) -> Bools:
    """Rows with a value that is infinite, not a number, or refused; ``nulls``: may be absent."""
    lists = Lists.of(batch, name)
    value, valid = lists.numbers(), lists.valid()
    wrong = ~np.isfinite(value)
    if refused is not None:
        wrong |= refused(value)
    return lists.of_rows((valid & wrong) | (~valid & (not nulls)))


def _not_finite(column: pa.Array) -> Bools:
    found: Bools = pc.fill_null(pc.invert(pc.is_finite(column)), False).to_numpy(
        zero_copy_only=False
    )
    return found


def _wrong_day(batch: pa.RecordBatch) -> Bools:
    time = pc.fill_null(batch.column("time"), 0).to_numpy()
    right = (time // _DAY_MS).astype("datetime64[D]").astype(str)
    given = batch.column(DAY).to_numpy(zero_copy_only=False).astype(object)
    found: Bools = right.astype(object) != given
    return found
