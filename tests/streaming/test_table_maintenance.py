"""Compaction, vacuum and log clean-up lose no row, no position, and break no writer or reader."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction

from contracts.feedback_table import LANE_FIELDS, lane_app_id, table_schema
from contracts.reading import ContractError
from streaming.consumer.lane import LaneFields
from streaming.consumer.table_sink import TableSink
from streaming.feedback_table.maintenance import Refusal, compact, retention_hours, vacuum
from streaming.feedback_table.opening import create_or_open, open_table
from streaming.feedback_table.transactions import groups, transactions
from tests.conftest import ROOT
from tests.streaming.feedback_tables import SPEC, append, rows_of, slate
from tests.streaming.write_beside import ROWS

TARGET = 1 << 27


def rows_of_table(uri: str, version: int | None = None) -> list[dict[str, object]]:
    table = DeltaTable(uri, version=version)
    rows: list[dict[str, object]] = table.to_pyarrow_table().to_pylist()
    return sorted(rows, key=lambda row: str(row["request_id"]))


def added(uri: str, after: int, until: int) -> list[str]:
    """Ids of rows that versions above ``after`` up to ``until`` added: the change data feed."""
    reader = DeltaTable(uri).load_cdf(starting_version=after + 1, ending_version=until)
    rows = pa.table(reader.read_all())
    assert set(rows["_change_type"].to_pylist()) <= {"insert"}
    return sorted(rows["request_id"].to_pylist())


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """A table of six commits, and every field of a lane."""
    uri = str(tmp_path / "feedback")
    create_or_open(uri, SPEC)
    for number in range(6):
        fields = {name: 1000 * at + number for at, name in enumerate(LANE_FIELDS)}
        append(uri, [slate(3 * number + at) for at in range(3)], **fields)
    return uri


def positions(uri: str) -> dict[str, int | None]:
    table = open_table(uri)[0]
    return {name: table.transaction_version(lane_app_id("g", 0, name)) for name in LANE_FIELDS}


EXPECTED = {name: 1000 * at + 5 for at, name in enumerate(LANE_FIELDS)}


def test_compaction_keeps_rows_and_positions(uri: str) -> None:
    before = rows_of_table(uri)
    done = compact(open_table(uri)[0], TARGET)
    assert (done.files_removed, done.files_added) == (18, 3)
    assert rows_of_table(uri) == before
    assert positions(uri) == EXPECTED
    assert transactions(open_table(uri)[0], {}) == {
        lane_app_id("g", 0, name): number for name, number in EXPECTED.items()
    }
    again = compact(open_table(uri)[0], TARGET)
    assert (again.files_removed, again.version) == (0, done.version)


def test_one_day_alone_is_compacted(uri: str) -> None:
    assert compact(open_table(uri)[0], TARGET, day="2023-11-15").files_removed == 6
    assert compact(open_table(uri)[0], TARGET, day="1999-01-01").files_removed == 0


def test_positions_outlive_compaction_vacuum_checkpoint_and_an_empty_log(uri: str) -> None:
    table = open_table(uri)[0]
    table.alter.set_table_properties({"delta.logRetentionDuration": "interval 0 days"})
    compact(open_table(uri)[0], TARGET)
    freed = vacuum(open_table(uri)[0], {}, hours=0, force=True, delete=True)
    assert freed.files == 18
    assert freed.size_bytes > 0
    table = open_table(uri)[0]
    table.create_checkpoint()
    table.cleanup_metadata()
    log = Path(uri) / "_delta_log"
    assert not (log / f"{1:020d}.json").exists(), "the log was not cleaned: nothing is tested"
    assert positions(uri) == EXPECTED
    append(uri, [slate(50)], commits=99)
    table = open_table(uri)[0]
    assert positions(uri) == {**EXPECTED, "commits": 99}
    # Names come from the checkpoint and the commits after it.
    told = transactions(table, {})
    assert told == {lane_app_id("g", 0, n): v for n, v in {**EXPECTED, "commits": 99}.items()}
    (log / "_last_checkpoint").unlink()  # a hint; without it the listing tells
    assert transactions(open_table(uri)[0], {}) == told
    assert len(rows_of_table(uri)) == 19


def test_lanes_by_group_and_slowest_watermark(uri: str) -> None:
    DeltaTable(uri).alter.set_table_properties(
        {"delta.checkpointInterval": "100"},
        commit_properties=CommitProperties(
            app_transactions=[
                Transaction(app_id=lane_app_id("g", 10, "watermark"), version=7),
                Transaction(app_id=lane_app_id("a/b", 2, "commits"), version=1),
                Transaction(app_id="somebody-else", version=3),
            ]
        ),
    )
    first, second = groups(open_table(uri)[0], {})
    assert (first.name, second.name) == ("a/b", "g")
    assert first.watermark is None
    assert [lane.partition for lane in second.lanes] == [0, 10]
    assert second.lanes[0].feedback_position == EXPECTED["feedback_position"]
    assert second.watermark == 7


def test_rows_added_between_versions_are_told_after_compaction(uri: str) -> None:
    """What a refresh reads: compaction and clean-up add no row and hide none."""
    before = [added(uri, after, until) for after in range(6) for until in range(after + 1, 7)]
    # From version 0 on: the only range that looks at whether the feed is on.
    assert added(uri, -1, 6) == [f"q{number:06}" for number in range(18)]
    assert added(uri, 2, 4) == [f"q{number:06}" for number in range(6, 12)]
    compact(open_table(uri)[0], TARGET)
    append(uri, [slate(70)])
    compact(open_table(uri)[0], TARGET)
    vacuum(open_table(uri)[0], {}, delete=True)  # within the table's own retention
    table = open_table(uri)[0]
    table.create_checkpoint()
    table.cleanup_metadata()
    after = [added(uri, after, until) for after in range(6) for until in range(after + 1, 7)]
    assert after == before
    assert added(uri, 6, DeltaTable(uri).version()) == ["q000070"]


def test_a_version_that_is_kept_stays_readable(uri: str) -> None:
    at_three = rows_of_table(uri, 3)
    compact(open_table(uri)[0], TARGET)
    kept = vacuum(open_table(uri)[0], {}, hours=0, force=True, delete=True, keep_versions=(3,))
    assert kept.files == 9
    assert rows_of_table(uri, 3) == at_three
    with pytest.raises(Exception, match=r"not found|No such file"):
        rows_of_table(uri, 5)
    with pytest.raises(ContractError, match="--keep-version 99"):
        vacuum(open_table(uri)[0], {}, keep_versions=(99,))


def test_a_dry_run_removes_nothing(uri: str) -> None:
    compact(open_table(uri)[0], TARGET)
    files = sorted(Path(uri).rglob("*.parquet"))
    told = vacuum(open_table(uri)[0], {}, hours=0, force=True)
    assert (told.deleted, told.files) == (False, 18)
    assert told.size_bytes == sum(one.stat().st_size for one in files if one not in live_files(uri))
    assert sorted(Path(uri).rglob("*.parquet")) == files
    assert vacuum(open_table(uri)[0], {}).files == 0  # younger than the retention


def live_files(uri: str) -> set[Path]:
    checkpoints = set((Path(uri) / "_delta_log").glob("*.parquet"))
    return checkpoints | {Path(one.removeprefix("file://")) for one in DeltaTable(uri).file_uris()}


def test_less_than_the_protected_retention_is_refused(uri: str) -> None:
    table = open_table(uri)[0]
    assert retention_hours(table) == 168
    with pytest.raises(Refusal, match="167 hours is less than the 168"):
        vacuum(table, {}, hours=167, delete=True)
    with pytest.raises(Refusal, match="under way"):
        vacuum(table, {}, hours=0, force=True, full=True, delete=True)
    table.alter.set_table_properties({"delta.deletedFileRetentionDuration": "interval 2 weeks"})
    assert retention_hours(open_table(uri)[0]) == 336
    table.alter.set_table_properties({"delta.deletedFileRetentionDuration": "interval 36 hours"})
    assert retention_hours(open_table(uri)[0]) == 36


def test_a_second_compaction_of_the_same_files_is_refused(uri: str) -> None:
    late = open_table(uri)[0]
    compact(open_table(uri)[0], TARGET)
    before = rows_of_table(uri)
    with pytest.raises(Refusal, match="nothing was changed"):
        compact(late, TARGET)
    assert rows_of_table(uri) == before


@pytest.mark.timeout(180)
def test_a_writer_beside_compaction_and_vacuum_never_fails(uri: str, tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.streaming.write_beside", uri, str(stop), "1"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "1\n"
        compacted, beside, rounds = 0, 0, 0
        while writer.poll() is None and rounds < 60 and min(rounds, beside) < 8:
            before = DeltaTable(uri).version()
            done = compact(open_table(uri)[0], TARGET)
            compacted += done.files_removed
            vacuum(open_table(uri)[0], {}, hours=0, force=True, delete=True)
            beside += sum(
                one["operation"] == "WRITE"
                for one in DeltaTable(uri).history(20)
                if one["version"] > before
            )
            rounds += 1
        stop.touch()
        rest = writer.communicate(timeout=60)[0].split()
    finally:
        writer.kill()
        writer.wait()
    assert writer.returncode == 0
    commits = int(rest[-1])
    table = open_table(uri)[0]
    assert table.transaction_version(lane_app_id("g", 1, "commits")) == commits
    expected = [f"q{number:06}" for number in range(18)]
    expected += [f"q{200_000 + number:06}" for number in range(commits * ROWS)]
    assert [row["request_id"] for row in rows_of_table(uri)] == expected
    assert compacted > 18, "the writer's own files were not compacted: nothing is tested"
    assert beside >= 8, "hardly a commit came during the compactions: nothing is tested"


def test_the_consumers_own_sink_goes_on_after_upkeep(uri: str) -> None:
    """It keeps the table open, without its list of files, over compactions by others."""
    sink = TableSink(uri, SPEC, "gref")
    for number in range(1, 9):
        lane = LaneFields(number, 10 * number, 20, 30, 40, 50, 60)
        plain = rows_of([slate(500 + number)])
        sink.commit(pa.Table.from_pylist(plain, schema=table_schema(SPEC)), {3: lane})
        compact(open_table(uri)[0], TARGET)
        vacuum(open_table(uri)[0], {}, hours=0, force=True, delete=True)
    lanes = {group.name: group.lanes for group in groups(open_table(uri)[0], {})}
    assert [(lane.partition, lane.commits) for lane in lanes["gref"]] == [(3, 8)]
    assert lanes["gref"][0].exposures_position == 80
    assert positions(uri) == EXPECTED  # those of the other group
    ids = [row["request_id"] for row in rows_of_table(uri)]
    assert ids == [f"q{number:06}" for number in (*range(18), *range(501, 509))]
