"""Slates to Arrow row by row: slow and plain, the oracle of contracts.slate_columns.to_table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from contracts.features import FeatureSpec
from contracts.reading import ContractError
from contracts.slate_columns import item_columns, slate_schema, user_columns
from contracts.slates import Scalar, Slate


def to_table_by_rows(slates: Iterable[Slate], spec: FeatureSpec) -> pa.Table:
    rows = []
    for slate in slates:
        try:
            rows.append(_row(slate, spec))
        except (ContractError, OverflowError) as error:
            raise ContractError(f"slate {slate.request_id}: {error}") from error
    return pa.Table.from_pylist(rows, schema=slate_schema(spec))


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
