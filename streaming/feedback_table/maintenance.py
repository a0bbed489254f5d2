"""Fewer and larger files (compact), and files that no kept version needs (vacuum).

Neither changes a row, nor an application transaction: lanes keep their positions. An append beside
them succeeds, for it reads nothing that they write again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from deltalake import DeltaTable, WriterProperties
from deltalake.exceptions import CommitFailedError, DeltaError

from contracts.reading import ContractError, Strict
from streaming.feedback_table.transactions import filesystem

RETENTION_PROPERTY = "delta.deletedFileRetentionDuration"
#: Delta's own, where the table says nothing.
DEFAULT_RETENTION_HOURS = 168
#: A file that no commit names may be of a commit on its way; younger ones are never removed.
FULL_HOURS = 24

#: Readers hold a row group in memory at a time; by default a file would be one.
_PARQUET = WriterProperties(compression="ZSTD", max_row_group_size=1 << 14)
_UNIT_HOURS = {"hour": 1, "day": 24, "week": 168}


class Refusal(RuntimeError):
    """What was asked for would lose what others still read; says how to insist."""


class Compacted(Strict, kw_only=True, frozen=True):
    """What a compaction did; equal ``version`` before and after: there was nothing to do."""

    version_before: int
    version: int
    files_removed: int
    files_added: int


class Vacuumed(Strict, kw_only=True, frozen=True):
    """Files that no kept version needs; ``deleted`` is false in a dry run."""

    deleted: bool
    retention_hours: int
    files: int
    size_bytes: int


def compact(table: DeltaTable, target_bytes: int, day: str | None = None) -> Compacted:
    """Write small files of each day again as files of about ``target_bytes``, and a checkpoint.

    Rows keep their order. The old files stay for older versions until a vacuum.

    Raises:
        Refusal: another compaction did the same files meanwhile; nothing was changed.
    """
    before = table.version()
    try:
        done = table.optimize.compact(
            partition_filters=[("day", "=", day)] if day else None,
            target_size=target_bytes,
            writer_properties=_PARQUET,
        )
    except CommitFailedError as error:
        raise Refusal(
            f"another compaction or deletion changed the same files ({error}); nothing was "
            "changed. Run it again, and one at a time"
        ) from error
    if done["numFilesRemoved"]:
        table.create_checkpoint()
    return Compacted(
        version_before=before,
        version=table.version(),
        files_removed=done["numFilesRemoved"],
        files_added=done["numFilesAdded"],
    )


def vacuum(
    table: DeltaTable,
    storage_options: Mapping[str, str],
    *,
    hours: int | None = None,
    delete: bool = False,
    force: bool = False,
    full: bool = False,
    keep_versions: tuple[int, ...] = (),
) -> Vacuumed:
    """Find, and with ``delete`` remove, files that the table has not needed for ``hours``.

    Args:
        hours: None is the table's own retention.
        force: allow less than the table's own retention.
        full: also files that no commit names, of writers that died.
        keep_versions: versions that stay readable whatever their age.

    Raises:
        Refusal: fewer hours than the table protects, or than a commit under way may take.
        ContractError: a version to keep that is no longer there.
    """
    protected = retention_hours(table)
    hours = protected if hours is None else hours
    if hours < protected and not force:
        raise Refusal(
            f"{hours} hours is less than the {protected} that the table protects "
            f"({RETENTION_PROPERTY}): versions of that time, which a refresh may name, could not "
            "be read any more. Give --force if nobody needs them, or keep some by --keep-version"
        )
    if full and hours < FULL_HOURS:
        raise Refusal(
            f"--full with {hours} hours could remove the files of a commit that is under way; "
            f"allowed: {FULL_HOURS} hours or more, --force or not"
        )
    for version in keep_versions:
        try:
            DeltaTable(table.table_uri, version=version, storage_options=dict(storage_options))
        except DeltaError as error:
            raise ContractError(f"--keep-version {version}: not in the log: {error}") from error

    def run(*, dry_run: bool) -> list[str]:
        return table.vacuum(
            retention_hours=hours,
            dry_run=dry_run,
            enforce_retention_duration=not force,
            full=full,
            keep_versions=list(keep_versions) or None,
        )

    files = run(dry_run=True)
    size = _size(table, storage_options, files)
    if delete and files:
        files = run(dry_run=False)
    return Vacuumed(deleted=delete, retention_hours=hours, files=len(files), size_bytes=size)


def retention_hours(table: DeltaTable) -> int:
    """How long the table protects files that it no longer needs, in hours."""
    text = table.metadata().configuration.get(RETENTION_PROPERTY)
    if not text:
        return DEFAULT_RETENTION_HOURS
    match = re.fullmatch(r"interval (\d+) (hour|day|week)s?", text.strip().lower())
    if match is None:
        raise ContractError(
            f"property {RETENTION_PROPERTY} is {text!r}; allowed: interval N hours, days or weeks"
        )
    return int(match[1]) * _UNIT_HOURS[match[2]]


def _size(table: DeltaTable, storage_options: Mapping[str, str], files: list[str]) -> int:
    if not files:
        return 0
    found = filesystem(table, storage_options).get_file_info(files)
    return sum(one.size or 0 for one in found)
