"""Closed slates and lane positions to the Delta table, in one commit.

Two members may hold the same lane for a moment (a zombie and the new owner). A member names all of
its lanes in each of its commits. delta-rs refuses a commit where one of the same application ids
was committed since the version that the writer has loaded, and puts commits of other lanes one
after the other; so a lane's commits are a chain, and who has missed a link cannot add one. The log
is read when lanes are taken over and after a failure, never in between: on S3 that takes a second.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import DeltaError

from contracts.features import FeatureSpec
from contracts.feedback_table import (
    DAY,
    LANE_FIELDS,
    SPEC_SHA256_PROPERTY,
    day_of,
    lane_app_id,
    table_schema,
)
from contracts.reading import ContractError
from contracts.slate_columns import to_table
from contracts.slates import Slate
from streaming.consumer.lane import LaneFields
from streaming.feedback_table.opening import create_or_open
from streaming.feedback_table.transactions import transactions as read_transactions

log = logging.getLogger(__name__)

#: A reader begins with the newest checkpoint; without one it reads every commit there is.
COMMITS_PER_CHECKPOINT = 100
_DAY_MS = 86_400_000
#: How long one request to an object store may take. The loop must come round before the group
#: takes its lanes away (max.poll.interval.ms, 5 minutes); it tries again by itself.
_PATIENCE = {
    "connect_timeout": "5s",
    "timeout": "20s",
    "max_retries": "4",
    "retry_timeout": "40s",
}


class Fenced(Exception):
    """Another member has committed lanes that this one believed its own."""

    def __init__(self, partitions: Sequence[int]) -> None:
        super().__init__(f"lanes {', '.join(map(str, partitions))} have another owner")
        self.partitions = tuple(partitions)


class CommitFailed(Exception):
    """The table could not be written or read; nothing of the commit is lost by trying again."""


class TableSink:
    """The table as one consumer group writes it."""

    def __init__(
        self,
        uri: str,
        spec: FeatureSpec,
        group: str,
        storage_options: Mapping[str, str] | None = None,
    ) -> None:
        """Open the table, or make it; raises ContractError where it cannot be used."""
        self.spec = spec
        self._uri, self._group = uri, group
        self._options = {**(_PATIENCE if "://" in uri else {}), **(storage_options or {})}
        self._schema = table_schema(spec)
        create_or_open(uri, spec, self._options)
        self._table = self._load()
        self._since_checkpoint = 0
        self._mark = 0
        # Whether the loaded version holds nothing of our lanes that we do not know.
        self._is_checked = False

    def rows(self, slates: Sequence[Slate]) -> pa.Table:
        """Slates as rows of the table; raises ContractError where a value does not fit."""
        table = to_table(slates, self.spec)
        days: dict[int, str] = {}
        for slate in slates:
            number = slate.time // _DAY_MS
            if number not in days:
                days[number] = day_of(slate.time)
        column = pa.array([days[slate.time // _DAY_MS] for slate in slates], pa.string())
        return table.append_column(self._schema.field(DAY), column).cast(self._schema)

    def lanes(self, partitions: Sequence[int]) -> dict[int, LaneFields | None]:
        """What the table says of lanes now; None of a lane that was never committed.

        Raises:
            CommitFailed: the table cannot be read.
        """
        numbers = self._numbers()
        self._is_checked = True
        return {partition: self._lane(numbers, partition) for partition in partitions}

    def commit(self, rows: pa.Table | None, lanes: Mapping[int, LaneFields]) -> None:
        """Append rows and record what was handled of all lanes that are held, both or neither.

        Raises:
            Fenced: somebody else has committed one of the lanes; nothing was written.
            CommitFailed: it is to be tried again; should it have been written after all, trying
                again finds that.
        """
        if not self._is_checked and self._landed_or_fenced(lanes):
            return
        self._mark = secrets.randbits(62)
        transactions = [
            Transaction(lane_app_id(self._group, partition, name), value)
            for partition, fields in lanes.items()
            for name, value in zip(LANE_FIELDS, fields)
        ]
        transactions += [Transaction(self._writer(one), self._mark) for one in lanes]
        try:
            write_deltalake(
                self._table,
                rows if rows is not None else self._schema.empty_table(),
                mode="append",
                commit_properties=CommitProperties(app_transactions=transactions),
            )
        except (DeltaError, OSError, ValueError) as error:
            self._is_checked = False
            if not self._landed_or_fenced(lanes):
                raise CommitFailed(_one_line(error)) from error
        self._since_checkpoint += 1

    def _landed_or_fenced(self, lanes: Mapping[int, LaneFields]) -> bool:
        """After a failure: True where the commit was written although it was reported as failed.

        Raises:
            Fenced: lanes are not where a next commit of ours would find them.
        """
        numbers = self._numbers()
        now = {partition: self._lane(numbers, partition) for partition in lanes}
        marks = {numbers.get(self._writer(partition)) for partition in lanes}
        landed = marks == {self._mark} and now == dict(lanes)
        before = {one: 0 if fields is None else fields.commits for one, fields in now.items()}
        lost = [one for one, fields in lanes.items() if before[one] != fields.commits - 1]
        if lost and not landed:
            raise Fenced(lost)
        self._is_checked = True
        return landed

    def tidy(self) -> None:
        """Write a checkpoint of the log when it is time; failing to is no harm."""
        if self._since_checkpoint < COMMITS_PER_CHECKPOINT:
            return
        self._since_checkpoint = 0
        try:
            whole = DeltaTable(self._uri, storage_options=self._options)
            whole.create_checkpoint()
            whole.cleanup_metadata()
            # What was loaded goes on from the checkpoint, at the version that we know.
            self._table = DeltaTable(
                self._uri,
                version=self._table.version(),
                storage_options=self._options,
                without_files=True,
            )
        except (DeltaError, OSError) as error:
            log.warning("no checkpoint of the table's log: %s", _one_line(error))

    def _load(self) -> DeltaTable:
        # The list of files grows with the table and is of no use to one who appends.
        return DeltaTable(self._uri, storage_options=self._options, without_files=True)

    def _numbers(self) -> dict[str, int]:
        """All application transactions of the newest version, in one pass over the log."""
        self._is_checked = False
        try:
            self._table.update_incremental()
            numbers = read_transactions(self._table, self._options)
            spec = self._table.metadata().configuration.get(SPEC_SHA256_PROPERTY)
        except (DeltaError, OSError, ValueError) as error:
            raise CommitFailed(_one_line(error)) from error
        if spec != self.spec.hash():
            raise ContractError(f"{self._uri}: its feature spec changed while it was written to")
        return numbers

    def _writer(self, partition: int) -> str:
        return f"gref/{self._group}/{partition}/writer"

    def _lane(self, numbers: Mapping[str, int], partition: int) -> LaneFields | None:
        names = [lane_app_id(self._group, partition, name) for name in LANE_FIELDS]
        if not all(name in numbers for name in names):
            return None
        return LaneFields(*(numbers[name] for name in names))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]
