"""Slates as Arrow columns: the schema of Parquet files and of the feedback table.

One row is one slate. ``user__NAME`` and ``item__NAME`` hold raw features (item columns are lists,
one value a candidate); ``feedback__KIND`` and ``feedback_time__KIND`` are lists aligned with
``exposed``, null where the user did nothing of that kind.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from contracts.features import FeatureSpec
from contracts.reading import ContractError
from contracts.slates import Candidate, Feedback, Scalar, Slate

#: Names that are fields of a slate or a candidate, not columns of their own.
RESERVED_ITEM, RESERVED_USER = ("item", "score"), ("user",)


def item_columns(spec: FeatureSpec) -> dict[str, pa.DataType]:
    """Arrow type of each stored item feature (categories as text, dense as doubles)."""
    return _types(spec.item, RESERVED_ITEM)


def user_columns(spec: FeatureSpec) -> dict[str, pa.DataType]:
    """Arrow type of each stored user feature."""
    return _types(spec.user, RESERVED_USER)


def _types(group: Any, reserved: tuple[str, ...]) -> dict[str, pa.DataType]:
    types = {feature.name: pa.string() for feature in group.categorical}
    types.update({feature.name: pa.float64() for feature in group.dense})
    return {name: kind for name, kind in types.items() if name not in reserved}


def slate_schema(spec: FeatureSpec) -> pa.Schema:
    """The Arrow schema of slates under a feature spec; its hash is in the metadata."""
    fields = [
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("user", pa.string(), nullable=False),
        pa.field("time", pa.int64(), nullable=False),
        pa.field("surface", pa.string()),
        pa.field("release", pa.string()),
        pa.field("arm", pa.string()),
        pa.field("fallback", pa.string()),
        pa.field("candidates", pa.list_(pa.string()), nullable=False),
        pa.field("scores", pa.list_(pa.float64())),
        pa.field("exposed", pa.list_(pa.int32()), nullable=False),
        pa.field("log_prob", pa.list_(pa.float64())),
        pa.field("temperature", pa.float64()),
        pa.field("seed", pa.int64()),
    ]
    fields += [pa.field(f"user__{name}", kind) for name, kind in user_columns(spec).items()]
    fields += [
        pa.field(f"item__{name}", pa.list_(kind)) for name, kind in item_columns(spec).items()
    ]
    for feedback in spec.feedback:
        fields.append(pa.field(f"feedback__{feedback.kind}", pa.list_(pa.float64())))
        fields.append(pa.field(f"feedback_time__{feedback.kind}", pa.list_(pa.int64())))
    return pa.schema(fields, metadata={"feature_spec": spec.hash()})


def to_table(slates: Iterable[Slate], spec: FeatureSpec) -> pa.Table:
    """Slates as an Arrow table of ``slate_schema(spec)``; features not in the spec are left out.

    Raises:
        ContractError: a feature value of a type that the encoder would refuse; stored as text or
            as a number it would be accepted in training and refused while serving.
    """
    schema = slate_schema(spec)
    rows = []
    for slate in slates:
        try:
            rows.append(_row(slate, spec))
        except (ContractError, OverflowError) as error:
            raise ContractError(f"slate {slate.request_id}: {error}") from error
    return pa.Table.from_pylist(rows, schema=schema)


def from_table(table: pa.Table, spec: FeatureSpec) -> list[Slate]:
    """The slates of a table; the inverse of ``to_table`` up to features not in the spec."""
    return [_slate(row, spec) for row in table.to_pylist()]


def _stored(name: str, value: Scalar, kind: pa.DataType) -> str | float | None:
    """A raw value as its column keeps it: categories as text, dense values as doubles."""
    if value is None:
        return None
    if kind == pa.string() and isinstance(value, (str, bool, int)):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if kind == pa.float64() and isinstance(value, (float, bool, int)):
        return float(value)
    allowed = "string, whole number or boolean" if kind == pa.string() else "number"
    raise ContractError(
        f"feature {name}: {value!r} is {type(value).__name__}; allowed: {allowed}, or missing"
    )


def _row(slate: Slate, spec: FeatureSpec) -> dict[str, Any]:
    row: dict[str, Any] = {
        "request_id": slate.request_id,
        "user": slate.user,
        "time": slate.time,
        "surface": slate.surface,
        "release": slate.release,
        "arm": slate.arm,
        "fallback": slate.fallback,
        "candidates": [candidate.item for candidate in slate.candidates],
        "scores": [candidate.score for candidate in slate.candidates],
        "exposed": list(slate.exposed),
        "log_prob": None if slate.log_prob is None else list(slate.log_prob),
        "temperature": slate.temperature,
        "seed": slate.seed,
    }
    for name, kind in user_columns(spec).items():
        row[f"user__{name}"] = _stored(name, slate.user_features.get(name), kind)
    for name, kind in item_columns(spec).items():
        row[f"item__{name}"] = [
            _stored(name, candidate.features.get(name), kind) for candidate in slate.candidates
        ]
    for feedback in spec.feedback:
        row[f"feedback__{feedback.kind}"] = [None] * len(slate.exposed)
        row[f"feedback_time__{feedback.kind}"] = [None] * len(slate.exposed)
    for one in slate.feedback:
        if f"feedback__{one.kind}" in row:
            row[f"feedback__{one.kind}"][one.position] = one.value
            row[f"feedback_time__{one.kind}"][one.position] = one.time
    return row


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
