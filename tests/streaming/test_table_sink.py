"""One commit for rows and positions, and only by who holds the lane."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

import streaming.consumer.table_sink as module
from contracts.events import encode_event
from contracts.reading import ContractError
from deploy.local_s3 import LocalS3
from streaming.consumer.lane import LaneFields
from streaming.consumer.open_slates import OpenSlate
from streaming.consumer.rows import RowBuilder
from streaming.consumer.table_sink import CommitFailed, Fenced, TableSink
from tests.contracts.examples import spec
from tests.streaming.lane_records import exposure

pytestmark = pytest.mark.timeout(120)


def fields(commits: int, read: int = 0) -> LaneFields:
    return LaneFields(commits, read, read, read, read, 1_000 * read, 5_000)


def slates(*names: str) -> pa.Table:
    made = (exposure(name, 86_400_000 * 3) for name in names)
    return RowBuilder(spec()).table([OpenSlate(0, b"", encode_event(one), one) for one in made])


def sink(table: Path | str, options: dict[str, str] | None = None) -> TableSink:
    opened = TableSink(str(table), spec(), "g", options)
    opened.lanes([0, 1])
    return opened


def names(table: Path | str, options: dict[str, str] | None = None) -> list[str]:
    found = DeltaTable(str(table), storage_options=options).to_pyarrow_table()
    return sorted(found["request_id"].to_pylist())


def test_rows_and_positions_in_one_version(tmp_path: Path) -> None:
    one = sink(tmp_path / "t")
    one.commit(slates("a", "b"), {0: fields(1, 7), 1: fields(1)})
    assert one.lanes([0, 1, 2]) == {0: fields(1, 7), 1: fields(1), 2: None}
    one.commit(None, {0: fields(2, 9), 1: fields(2)})
    assert sink(tmp_path / "t").lanes([0]) == {0: fields(2, 9)}
    table = DeltaTable(str(tmp_path / "t"))
    assert table.version() == 2
    assert names(tmp_path / "t") == ["a", "b"]
    assert table.to_pyarrow_table()["day"].to_pylist() == ["1970-01-04"] * 2


def check_fencing(table: Path | str, options: dict[str, str] | None = None) -> None:
    zombie, owner, third = (sink(table, options) for _ in range(3))
    owner.commit(slates("a"), {0: fields(1)})
    # Both had loaded the same version: the lane's second writer is refused, whatever it retries.
    for _ in range(2):
        with pytest.raises(Fenced) as refused:
            zombie.commit(slates("a"), {0: fields(1)})
        assert refused.value.partitions == (0,)
    # Another lane is nobody's conflict, without looking at the table first.
    third.commit(slates("b"), {1: fields(1)})
    # A member that named both lanes has lost one of them, and writes neither.
    both = sink(table, options)
    owner.commit(slates("c"), {0: fields(2)})
    with pytest.raises(Fenced) as refused:
        both.commit(slates("d"), {0: fields(2), 1: fields(2)})
    assert refused.value.partitions == (0,)
    assert names(table, options) == ["a", "b", "c"]


def test_zombie_is_fenced(tmp_path: Path) -> None:
    check_fencing(tmp_path / "t")


def test_zombie_is_fenced_on_s3(s3: LocalS3, bucket: str) -> None:
    check_fencing(f"s3://{bucket}/t", s3.storage_options())


def test_many_members_commit_at_once(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    sink(tmp_path / "t")

    def member(lane: int) -> None:
        own = TableSink(str(tmp_path / "t"), spec(), "g")
        own.lanes([lane])
        for turn in range(10):
            for tries in range(10):  # one that always comes second is told to try again
                try:
                    own.commit(slates(f"{lane}-{turn}"), {lane: fields(turn + 1, turn)})
                    break
                except CommitFailed:
                    assert tries < 9

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(member, range(4)))
    assert names(tmp_path / "t") == sorted(f"{a}-{b}" for a in range(4) for b in range(10))
    assert sink(tmp_path / "t").lanes([3]) == {3: fields(10, 9)}


def test_commit_that_landed_but_was_reported_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = sink(tmp_path / "t")
    write = module.write_deltalake

    def lands(*arguments, **named):
        write(*arguments, **named)
        raise OSError("connection reset after the request")

    monkeypatch.setattr(module, "write_deltalake", lands)
    one.commit(slates("a"), {0: fields(1)})  # found in the log, not written again
    monkeypatch.setattr(module, "write_deltalake", write)
    one.commit(slates("b"), {0: fields(2)})
    assert names(tmp_path / "t") == ["a", "b"]


def test_failed_commit_leaves_nothing_and_can_be_tried_again(tmp_path: Path) -> None:
    one = sink(tmp_path / "t")
    log = tmp_path / "t" / "_delta_log"
    log.rename(tmp_path / "away")
    for _ in range(2):
        with pytest.raises(CommitFailed):
            one.commit(slates("a"), {0: fields(1)})
    (tmp_path / "away").rename(log)
    one.commit(slates("a"), {0: fields(1)})
    assert names(tmp_path / "t") == ["a"]


def test_checkpoint_keeps_positions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMMITS_PER_CHECKPOINT", 3)
    one = sink(tmp_path / "t")
    for turn in range(1, 8):
        one.commit(slates(f"s{turn}"), {0: fields(turn, turn)})
        one.tidy()
    assert list((tmp_path / "t" / "_delta_log").glob("*.checkpoint.parquet"))
    assert sink(tmp_path / "t").lanes([0]) == {0: fields(7, 7)}
    assert len(names(tmp_path / "t")) == 7


def test_other_spec_is_refused(tmp_path: Path) -> None:
    sink(tmp_path / "t")
    with pytest.raises(ContractError, match="name another table"):
        TableSink(str(tmp_path / "t"), spec(list_size=2), "g")
