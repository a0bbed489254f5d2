"""The feedback table: closed slates in Delta format, with the Kafka positions they came from.

The consumer appends rows and positions in one commit; training reads a range of versions. Rows are
those of ``contracts/slate_columns.py`` and a ``day`` (UTC, of the exposure), the partition column.
The feature spec is a property of the table, so that a table explains itself.

What a commit says of a lane (partition k of both topics) is kept as Delta application transactions,
one whole number under each name of ``LANE_FIELDS``: they are part of the same atomic commit as the
rows and survive log checkpoints.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone

import pyarrow as pa

from contracts.features import FeatureSpec
from contracts.reading import ContractError, canonical_json, convert
from contracts.slate_columns import slate_schema

#: Partition column: the UTC day of the exposure, as YYYY-MM-DD.
DAY = "day"

#: Table properties.
SPEC_PROPERTY, SPEC_SHA256_PROPERTY = "gref.featureSpec", "gref.featureSpecSha256"

#: Of each lane: how many commits it has had; per topic the oldest offset that an open slate still
#: needs (``position``: where a new owner starts) and the next offset that had not been handled
#: (``read``: below it nothing is counted or dead-lettered again); the watermark in ms of event
#: time, and the wall-clock time of the commit in ms.
LANE_FIELDS = (
    "commits",
    "exposures_position",
    "feedback_position",
    "exposures_read",
    "feedback_read",
    "watermark",
    "wall",
)


def lane_app_id(group: str, partition: int, field: str) -> str:
    """The name of a lane's field among the table's application transactions."""
    assert field in LANE_FIELDS, field
    return f"gref/{group}/{partition}/{field}"


def table_schema(spec: FeatureSpec) -> pa.Schema:
    """The Arrow schema of the table's rows: a slate and its day."""
    return slate_schema(spec).append(pa.field(DAY, pa.string(), nullable=False))


def day_of(time_ms: int) -> str:
    """The UTC day of a time."""
    return datetime.fromtimestamp(time_ms / 1000, timezone.utc).strftime("%Y-%m-%d")


def table_properties(spec: FeatureSpec) -> dict[str, str]:
    """The properties with which a table is created."""
    return {SPEC_PROPERTY: canonical_json(spec).decode(), SPEC_SHA256_PROPERTY: spec.hash()}


def spec_of_table(properties: Mapping[str, str | None], where: str) -> FeatureSpec:
    """The feature spec that a table was created with.

    Raises:
        ContractError: the table has none, or it was altered.
    """
    text, sha256 = properties.get(SPEC_PROPERTY), properties.get(SPEC_SHA256_PROPERTY)
    if not text or not sha256:
        raise ContractError(
            f"{where}: no property {SPEC_PROPERTY}; this is not a feedback table. Make one with "
            "streaming/consume.py"
        )
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise ContractError(f"{where}: property {SPEC_PROPERTY}: not JSON: {error}") from error
    spec = convert(raw, FeatureSpec, f"{where}: property {SPEC_PROPERTY}")
    if spec.hash() != sha256:
        raise ContractError(
            f"{where}: property {SPEC_PROPERTY} has hash {spec.hash()[:12]}, recorded {sha256[:12]}"
        )
    return spec
