"""The feedback table as a data source: exactly the slates that a range of its versions added.

What a version added is read from Delta's log: the files that its commit added with ``dataChange``.
Compaction rewrites rows with ``dataChange`` false, so it adds nothing here, and the rows of a range
stay the same rows whenever they are read. A commit that deleted rows (a user's right to be
forgotten) adds nothing either; what it deleted within the range is left out.

Versions are whole numbers from 0; a range ``first`` to ``last`` holds both ends.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from contracts.feedback_table import spec_of_table
from contracts.reading import ContractError
from contracts.slate_columns import slate_schema

#: Log entries and files read at once; on object storage each costs a round trip.
_AT_ONCE = 16


@dataclass(frozen=True)
class Commit:
    """What one version did to the table.

    Attributes:
        added: paths of the files whose rows are new, within the table.
        deleted: whether rows were deleted.
    """

    version: int
    added: tuple[str, ...]
    deleted: bool


class FeedbackTable:
    """A feedback table, read as of when it was opened.

    Attributes:
        uri: as it was given; id: the table's own, which a copy shares and a new table does not.
        version: the newest.
        spec: the feature spec that its rows were written under.
    """

    def __init__(self, uri: str, storage_options: Mapping[str, str] | None = None) -> None:
        """Open a table in a folder or at s3://.

        Raises:
            ContractError: there is no table, it cannot be read, or it is not a feedback table.
        """
        self.uri = uri
        self._options = dict(storage_options or {}) or None
        try:
            self._table = DeltaTable(uri, storage_options=self._options)
            self.version: int = self._table.version()
            metadata = self._table.metadata()
        except TableNotFoundError as error:
            raise ContractError(
                f"{uri}: no Delta table there; give the folder or s3:// address that "
                "streaming/consume.py writes to"
            ) from error
        except (DeltaError, OSError, ValueError) as error:
            raise ContractError(f"{uri}: cannot be read as a Delta table: {error}") from error
        self.id = str(metadata.id)
        self.spec = spec_of_table(metadata.configuration, uri)
        self._files: Any = self._table.to_pyarrow_dataset().filesystem

    def commits(self, first: int, last: int) -> list[Commit]:
        """What each version of a range did.

        Raises:
            ContractError: the log does not reach back to ``first``, or is damaged.
        """
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(self._commit, range(first, last + 1)))

    def newest_with_rows(self, first: int, last: int) -> int | None:
        """The newest version of a range that added rows; None where none did."""
        while last >= first:
            start = max(first, last + 1 - _AT_ONCE)
            for commit in reversed(self.commits(start, last)):
                if commit.added:
                    return commit.version
            last = start - 1
        return None

    def rows(self, first: int, last: int) -> pa.Table:
        """The rows that a range of versions added, in ``slate_schema(spec)``, by time and request.

        Raises:
            ContractError: a file of the range is gone (vacuumed) or damaged.
        """
        schema = slate_schema(self.spec)
        if first == 0:  # all there is by then: the log need not reach back to the beginning
            since = self.newest_with_rows(last + 1, self.version)
            return _in_order(self._all_at(self.version if since is None else last, schema))
        commits = self.commits(first, last)
        paths = [path for commit in commits for path in commit.added]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            tables = list(pool.map(lambda path: self._read(path, schema), paths))
        table = pa.concat_tables(tables) if tables else schema.empty_table()
        if any(commit.deleted for commit in commits):
            table = table.filter(pc.is_in(table["request_id"], value_set=self._ids_at(last)))
        return _in_order(table)

    def _commit(self, version: int) -> Commit:
        path = f"_delta_log/{version:020d}.json"
        try:
            with self._files.open_input_file(path) as file:
                actions = [json.loads(line) for line in file.read().splitlines() if line.strip()]
        except FileNotFoundError as error:
            raise ContractError(
                f"{self.uri}: the log no longer holds version {version}, so its rows cannot be "
                "told from older ones; give --since-version with a version that is there, and "
                "keep the log for longer than the time between refreshes"
            ) from error
        except (OSError, ValueError) as error:
            raise ContractError(f"{self.uri}: version {version} cannot be read: {error}") from error
        changes = [
            (kind, action)
            for entry in actions
            for kind, action in entry.items()
            if kind in ("add", "remove") and action.get("dataChange", True)
        ]
        deleted = any(kind == "remove" for kind, _ in changes)
        added = () if deleted else tuple(unquote(action["path"]) for _, action in changes)
        return Commit(version, added, deleted)

    def _read(self, path: str, schema: pa.Schema) -> pa.Table:
        try:
            with self._files.open_input_file(path) as file:
                table = pq.read_table(file, columns=schema.names)
            return table.select(schema.names).cast(schema)
        except FileNotFoundError as error:
            raise ContractError(
                f"{self.uri}: {path} is gone; vacuum took it before a refresh had read it. Give "
                "--since-version with a newer version, and vacuum with a retention longer than "
                "the time between refreshes"
            ) from error
        except (OSError, ValueError, KeyError) as error:  # Arrow's own errors among them
            raise ContractError(f"{self.uri}: {path} cannot be read: {error}") from error

    def _all_at(self, version: int, schema: pa.Schema) -> pa.Table:
        try:
            table = DeltaTable(self.uri, version=version, storage_options=self._options)
            return table.to_pyarrow_table(columns=schema.names).cast(schema)
        except (DeltaError, OSError, ValueError) as error:
            raise ContractError(
                f"{self.uri}: version {version} cannot be read: {error}. Where vacuum took its "
                "files, give --until-version with a newer one, or none"
            ) from error

    def _ids_at(self, version: int) -> pa.Array:
        table = DeltaTable(self.uri, version=version, storage_options=self._options)
        ids = table.to_pyarrow_table(columns=["request_id"])["request_id"]
        return pa.concat_arrays([chunk.cast(pa.string()) for chunk in ids.chunks])


def _in_order(table: pa.Table) -> pa.Table:
    return table.sort_by([("time", "ascending"), ("request_id", "ascending")])
