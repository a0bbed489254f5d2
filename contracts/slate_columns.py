"""Slates to Arrow columns and back; the columns are those of ``contracts/slate_schema.py``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, chain
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from contracts.features import FeatureSpec
from contracts.reading import ContractError
from contracts.slate_schema import item_columns, slate_schema, user_columns
from contracts.slates import Candidate, Feedback, Scalar, Slate

__all__ = ["from_table", "item_columns", "slate_schema", "to_table", "user_columns"]

#: Columns that are fields of the slate itself, as they are.
OF_THE_SLATE = (
    *("request_id", "user", "time", "surface", "release", "arm", "fallback"),
    *("log_prob", "temperature", "seed"),
)


def to_table(slates: Iterable[Slate], spec: FeatureSpec) -> pa.Table:
    """Slates as an Arrow table of ``slate_schema(spec)``; features not in the spec are left out.

    Raises:
        ContractError: a feature value of a type that the encoder would refuse (stored as text or
            as a number it would be accepted in training and refused while serving), or a value
            that its column cannot hold. Names the first such slate.
    """
    slates = list(slates)
    try:
        return _columns(slates, spec)
    except (ValueError, TypeError, OverflowError):
        # Columns are built over all slates at once; which slate is at fault is found one by one.
        for slate in slates:
            try:
                _columns([slate], spec)
            except (ValueError, TypeError, OverflowError) as error:
                raise ContractError(f"slate {slate.request_id}: {error}") from error
        raise


def _columns(slates: Sequence[Slate], spec: FeatureSpec) -> pa.Table:
    """The table, column by column: lists are built flat, with the offsets where each begins."""
    schema = slate_schema(spec)
    candidates = list(chain.from_iterable([slate.candidates for slate in slates]))
    of_candidates = _offsets([len(slate.candidates) for slate in slates])
    of_exposed = _offsets([len(slate.exposed) for slate in slates])
    columns: dict[str, Any] = {
        name: [getattr(slate, name) for slate in slates] for name in OF_THE_SLATE
    }
    columns["candidates"] = _lists(of_candidates, [one.item for one in candidates], pa.string())
    columns["scores"] = _lists(of_candidates, [one.score for one in candidates], pa.float64())
    shown = chain.from_iterable([slate.exposed for slate in slates])
    columns["exposed"] = _lists(of_exposed, list(shown), pa.int32())
    user_features = [slate.user_features for slate in slates]
    for name, kind in user_columns(spec).items():
        columns[f"user__{name}"] = _stored(name, _named(name, user_features), kind)
    item_features = [one.features for one in candidates]
    for name, kind in item_columns(spec).items():
        values = _stored(name, _named(name, item_features), kind)
        columns[f"item__{name}"] = _lists(of_candidates, values, kind)
    columns.update(_feedback_columns(slates, of_exposed, spec))
    return pa.Table.from_arrays(
        [
            one if isinstance(one := columns[field.name], pa.Array) else pa.array(one, field.type)
            for field in schema
        ],
        schema=schema,
    )


def _offsets(lengths: Sequence[int]) -> list[int]:
    return list(accumulate(lengths, initial=0))


def _lists(offsets: list[int], values: list[Any] | pa.Array, kind: pa.DataType) -> pa.Array:
    flat = values if isinstance(values, pa.Array) else pa.array(values, kind)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)


def _feedback_columns(
    slates: Sequence[Slate], offsets: list[int], spec: FeatureSpec
) -> dict[str, pa.Array]:
    """Values and times of each kind, at the places of the exposed items that they are about."""
    given: dict[str, tuple[list[int], list[float], list[int]]] = {
        one.kind: ([], [], []) for one in spec.feedback
    }
    for start, slate in zip(offsets, slates):
        for one in slate.feedback:
            if (lists := given.get(one.kind)) is not None:
                lists[0].append(start + one.position)
                lists[1].append(one.value)
                lists[2].append(one.time)
    columns = {}
    for kind, (places, values, times) in given.items():
        # Row of ``values`` for each exposed item, null where the user did nothing.
        rows: list[int | None] = [None] * offsets[-1]
        for row, place in enumerate(places):
            rows[place] = row
        index = pa.array(rows, pa.int32())
        for name, flat in (
            (f"feedback__{kind}", pa.array(values, pa.float64())),
            (f"feedback_time__{kind}", pa.array(times, pa.int64())),
        ):
            columns[name] = _lists(offsets, pc.take(flat, index), flat.type)
    return columns


def _named(name: str, features: Sequence[Mapping[str, Scalar]]) -> list[Scalar]:
    try:
        return list(map(itemgetter(name), features))  # twice as fast as get
    except KeyError:
        return [one.get(name) for one in features]


def _stored(name: str, values: list[Scalar], kind: pa.DataType) -> pa.Array:
    """Raw values as their column keeps them: categories as text, dense values as doubles."""
    types = set(map(type, values))
    if kind == pa.string():
        if not types <= {str, type(None)}:
            values = [None if one is None else _text(name, one) for one in values]
    elif not types <= {float, type(None)}:
        values = [None if one is None else _number(name, one) for one in values]
    return pa.array(values, kind)


def _text(name: str, value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int)):
        return str(value)
    raise _refused(name, value, "string, whole number or boolean")


def _number(name: str, value: Scalar) -> float:
    if isinstance(value, (float, bool, int)):
        return float(value)
    raise _refused(name, value, "number")


def _refused(name: str, value: Scalar, allowed: str) -> ContractError:
    return ContractError(
        f"feature {name}: {value!r} is {type(value).__name__}; allowed: {allowed}, or missing"
    )


def from_table(table: pa.Table, spec: FeatureSpec) -> list[Slate]:
    """The slates of a table; the inverse of ``to_table`` up to features not in the spec."""
    return [_slate(row, spec) for row in table.to_pylist()]


def _slate(row: dict[str, Any], spec: FeatureSpec) -> Slate:
    scores = row["scores"] or [None] * len(row["candidates"])
    columns = {name: row[f"item__{name}"] for name in item_columns(spec)}
    candidates = tuple(
        Candidate(
            item=item,
            score=scores[index],
            features={name: values[index] for name, values in columns.items()},
        )
        for index, item in enumerate(row["candidates"])
    )
    feedback = tuple(
        Feedback(
            position=position,
            kind=one.kind,
            value=value,
            time=row[f"feedback_time__{one.kind}"][position],
        )
        for one in spec.feedback
        for position, value in enumerate(row[f"feedback__{one.kind}"] or ())
        if value is not None
    )
    return Slate(
        request_id=row["request_id"],
        user=row["user"],
        time=row["time"],
        surface=row["surface"] or "",
        release=row["release"] or "",
        arm=row["arm"] or "",
        fallback=row["fallback"] or "",
        candidates=candidates,
        exposed=tuple(row["exposed"]),
        log_prob=None if row["log_prob"] is None else tuple(row["log_prob"]),
        temperature=row["temperature"] or 0.0,
        seed=row["seed"] or 0,
        user_features={name: row[f"user__{name}"] for name in user_columns(spec)},
        feedback=feedback,
    )
