"""Which rows a range of the table's versions added, through compaction, deletion and vacuum."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from deltalake import DeltaTable, write_deltalake

from contracts.feedback_table import DAY, day_of, table_properties, table_schema
from contracts.reading import ContractError
from contracts.slate_columns import to_table
from contracts.slates import Slate
from deploy.local_s3 import LocalS3
from tests.refresh.traffic import append
from training.checkpoint import Checkpoint
from training.sources.feedback_table import FeedbackTable
from training.sources.table_slates import split_times, usable_rows

pytestmark = pytest.mark.timeout(120)


def make(folder: Path, slates: list[Slate], champion: Checkpoint, commits: int = 4) -> Path:
    """Version k holds slates 10 (k - 1) to 10 k - 1, latest first: the order is not the time's."""
    for number in range(commits):
        part = slates[10 * number : 10 * number + 10]
        append(folder, part[::-1], champion.spec)
    return folder


def ids(table: FeedbackTable, first: int, last: int) -> list[str]:
    return list(table.rows(first, last)["request_id"].to_pylist())


def expected(slates: list[Slate], first: int, last: int) -> list[str]:
    return [slate.request_id for slate in slates[10 * max(0, first - 1) : 10 * last]]


def test_every_range_gives_the_rows_of_its_commits_by_time(
    tmp_path: Path, slates: list[Slate], champion: Checkpoint
) -> None:
    table = FeedbackTable(str(make(tmp_path / "t", slates, champion)))
    for first in range(5):
        for last in range(first, 5):
            assert ids(table, first, last) == expected(slates, first, last)


def test_compaction_adds_nothing_and_takes_nothing(
    tmp_path: Path, slates: list[Slate], champion: Checkpoint
) -> None:
    folder = make(tmp_path / "t", slates, champion)
    DeltaTable(str(folder)).optimize.compact()
    append(folder, slates[40:50], champion.spec)
    table = FeedbackTable(str(folder))
    assert table.version == 6
    assert ids(table, 2, 5) == expected(slates, 2, 4)
    assert ids(table, 0, 6) == [slate.request_id for slate in slates[:50]]
    assert table.newest_with_rows(1, 5) == 4
    assert table.newest_with_rows(5, 5) is None


def test_what_was_deleted_is_left_out_and_what_was_rewritten_is_not_new(
    tmp_path: Path, slates: list[Slate], champion: Checkpoint
) -> None:
    folder = make(tmp_path / "t", slates, champion)
    gone = slates[12].request_id
    DeltaTable(str(folder)).delete(f"request_id = '{gone}'")
    table = FeedbackTable(str(folder))
    assert ids(table, 2, 5) == [one for one in expected(slates, 2, 4) if one != gone]
    assert ids(table, 5, 5) == []
    assert table.newest_with_rows(5, 5) is None


def test_rows_that_vacuum_took_are_an_error_that_says_what_to_do(
    tmp_path: Path, slates: list[Slate], champion: Checkpoint
) -> None:
    folder = make(tmp_path / "t", slates, champion)
    delta = DeltaTable(str(folder))
    delta.optimize.compact()
    delta.vacuum(0, dry_run=False, enforce_retention_duration=False)
    with pytest.raises(ContractError, match=r"vacuum took it.*--since-version"):
        FeedbackTable(str(folder)).rows(1, 4)
    DeltaTable(str(folder)).create_checkpoint()
    for version in range(3):
        (folder / "_delta_log" / f"{version:020d}.json").unlink()
    with pytest.raises(ContractError, match=r"no longer holds version 1.*--since-version"):
        FeedbackTable(str(folder)).rows(1, 5)
    # From the beginning on, the table itself says what there is.
    assert ids(FeedbackTable(str(folder)), 0, 5) == expected(slates, 0, 4)


def test_a_table_on_object_storage(
    tmp_path: Path, slates: list[Slate], champion: Checkpoint
) -> None:
    with LocalS3(tmp_path) as s3:
        s3.create_bucket("events")
        options = s3.storage_options()
        uri = "s3://events/feedback"
        DeltaTable.create(
            uri,
            table_schema(champion.spec),
            partition_by=[DAY],
            configuration=table_properties(champion.spec),
            raise_if_key_not_exists=False,
            storage_options=options,
        )
        rows = to_table(slates[:10], champion.spec)
        rows = rows.append_column(DAY, [[day_of(slate.time) for slate in slates[:10]]])
        rows = rows.cast(table_schema(champion.spec))
        write_deltalake(uri, rows, mode="append", storage_options=options)
        table = FeedbackTable(uri, options)
        assert ids(table, 0, 1) == expected(slates, 0, 1)


def test_splits_are_by_time(slates: list[Slate], champion: Checkpoint) -> None:
    times = np.array([slate.time for slate in slates])
    split = split_times(times, 0.1, 0.2)
    shares = [sum(split.of(int(time)) == name for time in times) for name in ("train", "valid")]
    assert shares == [1050, 150]


def test_usable_rows_counts_each_row_once(
    tmp_path: Path, slates: list[Slate], champion: Checkpoint
) -> None:
    spec = msgspec.structs.replace(champion.spec, candidate_buckets=(8,), list_size=5)
    folder = tmp_path / "t"
    append(folder, slates[:20], champion.spec)
    rows = FeedbackTable(str(folder)).rows(0, 1)
    kept, dropped = usable_rows(rows, champion.spec)
    assert (kept.num_rows, dropped) == (20, {})
    kept, dropped = usable_rows(rows, spec)
    assert (kept.num_rows, dropped) == (0, {"more candidates than the model takes": 20})
