"""What lies in the topics and in the table, read without the product's code."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltalake import DeltaTable
from kafka import KafkaConsumer, TopicPartition

from contracts.events import DEAD_LETTERS
from tests.serving.processes import wait_until
from tests.streaming.promise.comparison import DeadLetter
from tests.streaming.promise.oracle import Message


def read_topics(address: str, ends: dict[tuple[str, int], int]) -> list[Message]:
    """All messages of some partitions, at least up to the ends given (what was acknowledged)."""
    return [
        Message(record.topic, record.partition, record.offset, record.key, record.value or b"")
        for record in _records(address, ends)
    ]


def read_dead_letters(address: str) -> list[DeadLetter]:
    """The dead-letter topic as it is now."""
    letters = []
    for record in _records(address, {(DEAD_LETTERS, 0): 0}):
        headers = {name: value.decode() for name, value in record.headers}
        place = (headers["topic"], int(headers["partition"]), int(headers["offset"]))
        letters.append(DeadLetter(place, headers["reason"], record.value or b""))
    return letters


def _records(address: str, ends: dict[tuple[str, int], int]) -> Iterable[Any]:
    """Every record: the end of a partition is the high watermark that comes with a fetch."""
    consumer = KafkaConsumer(
        bootstrap_servers=address, group_id=None, auto_offset_reset="earliest",
        enable_auto_commit=False, max_partition_fetch_bytes=8 << 20,
    )  # fmt: skip
    partitions = {TopicPartition(topic, number): end for (topic, number), end in ends.items()}
    records: list[Any] = []
    seen: dict[TopicPartition, int] = defaultdict(int)
    quiet = 0

    def at_end() -> bool:
        nonlocal quiet
        got = consumer.poll(300)
        for partition, batch in got.items():
            records.extend(batch)
            seen[partition] = batch[-1].offset + 1
        quiet = 0 if got else quiet + 1
        return quiet >= 3 and all(
            seen[partition] >= max(end, consumer.highwater(partition) or 0)
            for partition, end in partitions.items()
        )

    try:
        consumer.assign(list(partitions))
        consumer.seek_to_beginning(*partitions)
        wait_until(at_end, f"the ends of {sorted(ends)}", 60)
    finally:
        consumer.close()
    return records


def read_rows(table: str, options: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """The rows of a feedback table."""
    rows: list[dict[str, Any]] = (
        DeltaTable(table, storage_options=options).to_pyarrow_table().to_pylist()
    )
    return rows


@dataclass(frozen=True)
class Commit:
    """One version of the table: what it says of the lanes, and how many rows it brought."""

    version: int
    lanes: dict[int, dict[str, int]]
    rows: int


def read_commits(table: Path, group: str) -> list[Commit]:
    """The history of a local table, from the files of its log."""
    commits = []
    for file in sorted((table / "_delta_log").glob("*.json")):
        lanes: dict[int, dict[str, int]] = defaultdict(dict)
        rows = 0
        for line in file.read_text().splitlines():
            action = json.loads(line)
            if "txn" in action:
                prefix, of_group, partition, name = action["txn"]["appId"].split("/")
                assert prefix == "gref", action
                if of_group == group:
                    lanes[int(partition)][name] = action["txn"]["version"]
            if "add" in action:
                rows += json.loads(action["add"]["stats"])["numRecords"]
        commits.append(Commit(int(file.stem), dict(lanes), rows))
    return commits


def newest_lanes(table: Path, group: str) -> dict[int, dict[str, int]]:
    """The newest word on each lane; nothing where there is no table yet."""
    lanes: dict[int, dict[str, int]] = {}
    for commit in read_commits(table, group):
        lanes.update(commit.lanes)
    return lanes
