"""The Arrow schema of slates, in Parquet files and in the feedback table.

One row is one slate. ``user__NAME`` and ``item__NAME`` hold raw features (item columns are lists,
one value a candidate); ``feedback__KIND`` and ``feedback_time__KIND`` are lists aligned with
``exposed``, null where the user did nothing of that kind.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from contracts.features import FeatureSpec

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
