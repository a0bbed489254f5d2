"""A writer in a process of its own: appends commits to a feedback table until told to stop.

``python -m tests.streaming.write_beside URI STOP_FILE LANE [OPTIONS_JSON]`` prints one line for
each commit. It appends as the consumer does: rows and the lane's numbers in one commit.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow as pa
from deltalake import write_deltalake
from deltalake.transaction import CommitProperties, Transaction

from contracts.feedback_table import lane_app_id, table_schema
from tests.streaming.feedback_tables import SPEC, rows_of, slate

ROWS = 3
MOST = 400


def main(uri: str, stop: Path, lane: int, options: dict[str, str]) -> None:
    for number in range(MOST):
        if stop.exists() and number:
            return
        first = (lane + 1) * 100_000 + number * ROWS
        rows = rows_of([slate(first + at) for at in range(ROWS)])
        write_deltalake(
            uri,
            pa.Table.from_pylist(rows, schema=table_schema(SPEC)),
            mode="append",
            storage_options=options,
            commit_properties=CommitProperties(
                app_transactions=[
                    Transaction(app_id=lane_app_id("g", lane, "commits"), version=number + 1)
                ]
            ),
        )
        print(number + 1, flush=True)


if __name__ == "__main__":
    main(
        sys.argv[1],
        Path(sys.argv[2]),
        int(sys.argv[3]),
        json.loads(sys.argv[4]) if len(sys.argv) > 4 else {},
    )
