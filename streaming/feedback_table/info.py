"""What a feedback table holds, told from its log: no data file is read if statistics suffice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable

from contracts.features import FeatureSpec
from contracts.feedback_table import DAY
from contracts.reading import Strict
from streaming.feedback_table.transactions import Group, filesystem, groups, two_groups

#: Statistics of longer texts may be cut off.
_WHOLE_TEXT = 32


class Day(Strict, kw_only=True, frozen=True):
    """One partition of the table."""

    day: str
    rows: int
    files: int
    size_bytes: int


class Shown(Strict, kw_only=True, frozen=True):
    """Rows of one release and arm."""

    release: str
    arm: str
    rows: int


class Commit(Strict, kw_only=True, frozen=True):
    """One version of the table; ``time`` in ms since the epoch."""

    version: int
    time: int
    operation: str
    rows: int | None


class TableInfo(Strict, kw_only=True, frozen=True):
    """``python streaming/table.py info``; sizes in bytes."""

    uri: str
    version: int
    rows: int
    files: int
    size_bytes: int
    days: tuple[Day, ...]
    feature_spec_sha256: str
    feedback: tuple[str, ...]
    utility: str
    settings: dict[str, str]
    groups: tuple[Group, ...]
    shown: tuple[Shown, ...]
    commits: tuple[Commit, ...]
    warnings: tuple[str, ...]


def table_info(
    table: DeltaTable,
    spec: FeatureSpec,
    storage_options: Mapping[str, str],
    *,
    uri: str,
    commits: int = 10,
) -> TableInfo:
    """All that the log tells of a table, named ``uri``, and its last ``commits`` commits."""
    files = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    found = groups(table, storage_options)
    days = _days(files)
    warnings = [two_groups(found, uri), _many_small_files(days, uri)]
    configuration = table.metadata().configuration
    return TableInfo(
        uri=uri,
        version=table.version(),
        rows=sum(day.rows for day in days),
        files=len(files),
        size_bytes=sum(day.size_bytes for day in days),
        days=days,
        feature_spec_sha256=spec.hash(),
        feedback=tuple(one.kind for one in spec.feedback),
        utility=spec.utility,
        settings={
            name: value or ""
            for name, value in sorted(configuration.items())
            if name.startswith("delta.")
        },
        groups=found,
        shown=_shown(table, files, storage_options),
        commits=tuple(_commit(one) for one in table.history(commits)),
        warnings=tuple(one for one in warnings if one),
    )


def _days(files: list[dict[str, Any]]) -> tuple[Day, ...]:
    days: dict[str, list[dict[str, Any]]] = {}
    for one in files:
        days.setdefault(one[f"partition.{DAY}"] or "", []).append(one)
    return tuple(
        Day(
            day=day,
            rows=sum(one["num_records"] or 0 for one in of_day),
            files=len(of_day),
            size_bytes=sum(one["size_bytes"] for one in of_day),
        )
        for day, of_day in sorted(days.items())
    )


def _many_small_files(days: tuple[Day, ...], uri: str) -> str | None:
    """A day in hundreds of files is slow to read; half a target file each is worth nothing."""
    many = [day.day for day in days if day.files > 100 and day.size_bytes / day.files < 16 << 20]
    if not many:
        return None
    return (
        f"{len(many)} days are in more than 100 small files each (the first is {many[0]}): "
        f"python streaming/table.py compact {uri}"
    )


def _shown(
    table: DeltaTable, files: list[dict[str, Any]], storage_options: Mapping[str, str]
) -> tuple[Shown, ...]:
    """Rows by release and arm; a file is read only if it holds more than one of either."""
    rows: Counter[tuple[str, str]] = Counter()
    mixed = []
    for one in files:
        release, arm = (_only_value(one, name) for name in ("release", "arm"))
        if release is None or arm is None:
            mixed.append(one["path"])
        else:
            rows[release, arm] += one["num_records"] or 0
    if mixed:
        where = filesystem(table, storage_options)
        data = ds.dataset(mixed, filesystem=where, format="parquet")
        for batch in data.to_batches(columns=["release", "arm"], fragment_readahead=1):
            named = pa.table(batch).group_by(["release", "arm"]).aggregate([([], "count_all")])
            for one in named.to_pylist():
                rows[one["release"] or "", one["arm"] or ""] += one["count_all"]
    return tuple(
        Shown(release=release, arm=arm, rows=count)
        for (release, arm), count in sorted(rows.items())
    )


def _only_value(file: dict[str, Any], column: str) -> str | None:
    """The one value of a column in a file, by its statistics; None if they cannot tell."""
    low, high = file.get(f"min.{column}"), file.get(f"max.{column}")
    if (
        low is None
        or low != high
        or file.get(f"null_count.{column}") != 0
        or len(low) >= _WHOLE_TEXT
    ):
        return None
    return str(low)


def _commit(entry: dict[str, Any]) -> Commit:
    metrics = entry.get("operationMetrics") or {}
    rows = metrics.get("num_added_rows")
    return Commit(
        version=entry["version"],
        time=entry.get("timestamp", 0),
        operation=entry.get("operation", ""),
        rows=None if rows is None else int(rows),
    )
