"""Closed slates to rows of the feedback table, column by column from the events' bytes.

The same rows as ``contracts.slate_columns.to_table`` makes of slates, for a third of the time: no
struct of a slate, and no dictionary of a candidate's features, is ever made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, chain
from operator import attrgetter
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from contracts.features import FeatureSpec
from contracts.feedback_table import DAY, day_of, table_schema
from contracts.slate_columns import item_columns, user_columns
from streaming.consumer.exposure_type import exposure_type
from streaming.consumer.open_slates import OpenSlate

#: Fields of an exposure that are columns as they are.
_PLAIN = (
    *("request_id", "user", "time", "surface", "release", "arm", "fallback"),
    *("log_prob", "temperature", "seed"),
)
_DAY_MS = 86_400_000
#: Slates that are decoded at a time: what is made of them stays in the processor's cache.
_PART = 64


class RowBuilder:
    """Makes rows under one feature spec."""

    def __init__(self, spec: FeatureSpec) -> None:
        self.schema = table_schema(spec)
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(
            exposure_type(spec, checked=False)
        ).decode
        self._item, self._user = item_columns(spec), user_columns(spec)
        self._binary = {one.kind: one.type == "binary" for one in spec.feedback}

    def table(self, slates: Sequence[OpenSlate]) -> pa.Table:
        """One row a slate, in the given order.

        Raises:
            ValueError, OverflowError: a value does not fit its column.
        """
        parts = [self._part(slates[at : at + _PART]) for at in range(0, len(slates), _PART)]
        return pa.concat_tables(parts).combine_chunks() if parts else self.schema.empty_table()

    def _part(self, slates: Sequence[OpenSlate]) -> pa.Table:
        shown = [self._decode(slate.value) for slate in slates]
        columns: dict[str, Any] = {
            name: list(map(attrgetter(name), shown)) for name in _PLAIN
        }  # request_id first: it is what an error would be looked for by
        candidates = list(chain.from_iterable([one.candidates for one in shown]))
        of_candidates = _offsets([len(one.candidates) for one in shown])
        of_exposed = _offsets([len(one.exposed) for one in shown])
        columns["candidates"] = _lists(of_candidates, [one.item for one in candidates], pa.string())
        columns["scores"] = _lists(of_candidates, [one.score for one in candidates], pa.float64())
        exposed = list(chain.from_iterable([one.exposed for one in shown]))
        columns["exposed"] = _lists(of_exposed, exposed, pa.int32())
        user_features = [one.user_features for one in shown]
        for name, kind in self._user.items():
            columns[f"user__{name}"] = _stored(name, user_features, kind)
        item_features = [one.features for one in candidates]
        for name, kind in self._item.items():
            values = _stored(name, item_features, kind)
            columns[f"item__{name}"] = _lists(of_candidates, values, kind)
        columns.update(self._feedback(slates, of_exposed))
        days = {
            number: day_of(number * _DAY_MS) for number in {one.time // _DAY_MS for one in shown}
        }
        columns[DAY] = [days[one.time // _DAY_MS] for one in shown]
        return pa.Table.from_arrays(
            [
                one
                if isinstance(one := columns[field.name], pa.Array)
                else pa.array(one, field.type)
                for field in self.schema
            ],
            schema=self.schema,
        )

    def _feedback(self, slates: Sequence[OpenSlate], offsets: pa.Array) -> dict[str, pa.Array]:
        """Values and times of each kind at the places of the items that they are about."""
        length = offsets[-1].as_py()
        rows: dict[str, list[int | None]] = {kind: [None] * length for kind in self._binary}
        values: dict[str, list[float]] = {kind: [] for kind in self._binary}
        times: dict[str, list[int]] = {kind: [] for kind in self._binary}
        for start, slate in zip(offsets.to_pylist(), slates):
            for event in slate.counting():
                kind = event.kind
                if event.value or not self._binary[kind]:
                    rows[kind][start + slate.items.index(event.item)] = len(values[kind])
                    values[kind].append(event.value)
                    times[kind].append(event.time)
        columns = {}
        for kind, places in rows.items():
            index = pa.array(places, pa.int32())
            for name, flat in (
                (f"feedback__{kind}", pa.array(values[kind], pa.float64())),
                (f"feedback_time__{kind}", pa.array(times[kind], pa.int64())),
            ):
                columns[name] = pa.ListArray.from_arrays(offsets, pc.take(flat, index))
        return columns


def _offsets(lengths: Sequence[int]) -> pa.Array:
    return pa.array(list(accumulate(lengths, initial=0)), pa.int32())


def _lists(offsets: pa.Array, values: list[Any] | pa.Array, kind: pa.DataType) -> pa.Array:
    flat = values if isinstance(values, pa.Array) else pa.array(values, kind)
    return pa.ListArray.from_arrays(offsets, flat)


def _stored(name: str, features: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Values as their column keeps them: categories as text, dense values as doubles."""
    values = list(map(attrgetter(f"f_{name}"), features))
    try:
        return pa.array(values, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # numbers or booleans among the categories
        if kind == pa.string():
            return pa.array([_text(value) for value in values], kind)
        return pa.array([None if value is None else float(value) for value in values], kind)


def _text(value: str | bool | int | None) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else str(value)
