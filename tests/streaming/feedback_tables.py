"""Feedback tables of made slates, and rows of any kind, wrong ones too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake
from deltalake.transaction import CommitProperties, Transaction

from contracts.feedback_table import DAY, day_of, lane_app_id, table_schema
from contracts.slate_columns import to_table
from contracts.slates import Candidate, Feedback, Slate
from tests.contracts.examples import spec

SPEC = spec()
NOON = 1_700_049_600_000
DAY_MS = 86_400_000
MINUTE = 60_000


def slate(number: int, **changes: Any) -> Slate:
    """A slate of three candidates, two shown; every second one has a click, every third watch."""
    time = NOON + number % 3 * DAY_MS + number
    given = []
    if number % 2 == 0:
        given.append(Feedback(position=0, kind="click", value=1.0, time=time + 5))
    if number % 3 == 0:
        given.append(Feedback(position=1, kind="watch", value=2.5, time=time + 9))
    fields: dict[str, Any] = {
        "request_id": f"q{number:06}",
        "user": f"u{number % 7}",
        "time": time,
        "candidates": tuple(
            Candidate(
                item=f"i{number}-{at}", score=-float(at), features={"colour": "red", "price": 2.0}
            )
            for at in range(3)
        ),
        "exposed": (2, 0),
        "user_features": {"age": 30.0},
        "release": f"r000{1 + number % 2}",
        "arm": "a",
        "log_prob": (-0.5, -1.5),
        "temperature": 1.0,
        "seed": number,
        "feedback": tuple(given),
    }
    return Slate(**{**fields, **changes})


def rows_of(slates: Sequence[Slate]) -> list[dict[str, Any]]:
    """Rows of the feedback table, as plain data."""
    rows: list[dict[str, Any]] = to_table(slates, SPEC).to_pylist()
    return [{**row, DAY: day_of(row["time"])} for row in rows]


def append(
    uri: str,
    rows: Sequence[Slate] | Sequence[dict[str, Any]],
    options: Mapping[str, str] | None = None,
    **transactions: int,
) -> None:
    """One commit: rows, and numbers of lane 0 of group g by field."""
    plain = [row if isinstance(row, dict) else rows_of([row])[0] for row in rows]
    write_deltalake(
        uri,
        pa.Table.from_pylist(plain, schema=table_schema(SPEC)),
        mode="append",
        storage_options=dict(options or {}),
        commit_properties=CommitProperties(
            app_transactions=[
                Transaction(app_id=lane_app_id("g", 0, field), version=number)
                for field, number in transactions.items()
            ]
        ),
    )
