"""Application transactions of a Delta table: what each consumer group has handled, lane by lane.

deltalake gives the number of a transaction whose name is known (``transaction_version``); which
names there are stands in the log alone: in the last checkpoint and the commits after it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.fs import DeltaStorageHandler

from contracts.feedback_table import LANE_FIELDS, lane_app_id
from contracts.reading import Strict

_LOG = "_delta_log"


class Lane(Strict, kw_only=True, frozen=True):
    """What a group has handled of one partition; see contracts.feedback_table.LANE_FIELDS."""

    partition: int
    commits: int | None = None
    exposures_position: int | None = None
    feedback_position: int | None = None
    exposures_read: int | None = None
    feedback_read: int | None = None
    watermark: int | None = None
    wall: int | None = None


class Group(Strict, kw_only=True, frozen=True):
    """A consumer group that writes into the table; ``watermark`` is that of its slowest lane."""

    name: str
    watermark: int | None
    lanes: tuple[Lane, ...]


def filesystem(table: DeltaTable, storage_options: Mapping[str, str]) -> pafs.FileSystem:
    """The table's folder, wherever it is, as an Arrow filesystem."""
    return pafs.PyFileSystem(DeltaStorageHandler(table.table_uri, dict(storage_options)))


def groups(table: DeltaTable, storage_options: Mapping[str, str]) -> tuple[Group, ...]:
    """The consumer groups of the table, and their lanes."""
    found: dict[str, dict[int, dict[str, int]]] = {}
    for app_id, number in transactions(table, storage_options).items():
        prefix, _, rest = app_id.partition("/")
        name, _, place = rest.rpartition("/")
        name, _, partition = name.rpartition("/")
        if prefix != "gref" or place not in LANE_FIELDS or not partition.isdecimal():
            continue  # of another writer
        assert lane_app_id(name, int(partition), place) == app_id
        found.setdefault(name, {}).setdefault(int(partition), {})[place] = number
    return tuple(
        Group(
            name=name,
            watermark=min(
                (one["watermark"] for one in lanes.values() if "watermark" in one), default=None
            ),
            lanes=tuple(Lane(partition=at, **lanes[at]) for at in sorted(lanes)),
        )
        for name, lanes in sorted(found.items())
    )


def transactions(table: DeltaTable, storage_options: Mapping[str, str]) -> dict[str, int]:
    """The newest number of every application transaction, as of the table's version."""
    files = filesystem(table, storage_options)
    checkpoint, parts = _last_checkpoint(files, table.version())
    found: dict[str, int] = {}
    for part in parts:
        column = pq.read_table(files.open_input_file(part), columns=["txn"])["txn"]
        found.update((one["appId"], one["version"]) for one in column.to_pylist() if one)
    for version in range(checkpoint + 1, table.version() + 1):
        with files.open_input_file(f"{_LOG}/{version:020d}.json") as commit:
            for line in commit.read().splitlines():
                if b'"txn"' in line and (one := json.loads(line).get("txn")):
                    found[one["appId"]] = one["version"]
    return found


def _last_checkpoint(files: pafs.FileSystem, at_most: int) -> tuple[int, list[str]]:
    """Version and files of the newest checkpoint up to a version; -1 and none without one."""
    try:
        with files.open_input_file(f"{_LOG}/_last_checkpoint") as pointer:
            told = json.loads(pointer.read())
        if told["version"] <= at_most and "parts" not in told:
            name = f"{_LOG}/{told['version']:020d}.checkpoint.parquet"
            if files.get_file_info(name).type == pafs.FileType.File:
                return told["version"], [name]
    except (OSError, ValueError, KeyError):
        pass  # the pointer is a hint; the listing tells
    by_version: dict[int, list[str]] = {}
    for one in files.get_file_info(pafs.FileSelector(_LOG)):
        name = one.base_name
        if ".checkpoint." in name and name.endswith(".parquet") and name[:20].isdecimal():
            by_version.setdefault(int(name[:20]), []).append(one.path)
    newest = max((version for version in by_version if version <= at_most), default=-1)
    return newest, by_version.get(newest, [])


def two_groups(found: tuple[Group, ...], uri: str) -> str | None:
    """A warning where two groups write into one table: each would add every slate."""
    if len(found) < 2:
        return None
    names = ", ".join(group.name for group in found)
    return (
        f"{uri}: groups {names} write into this table; each adds every slate once, so that "
        "together they add it twice. Give each group a table of its own"
    )
