"""Closed slates and lane positions to the Delta table, in one commit.

Two members may hold the same lane for a moment (a zombie and the new owner). Each commit counts the
commits of its lanes up. delta-rs refuses a commit where another one of the same application id has
come since the table was loaded, and writes commits of other lanes one after the other; so a lane's
commits are a chain, and who has missed a link cannot add one.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import DeltaError

from contracts.features import FeatureSpec
from contracts.feedback_table import DAY, LANE_FIELDS, day_of, lane_app_id, table_schema
from contracts.reading import ContractError
from contracts.slate_columns import to_table
from contracts.slates import Slate
from streaming.consumer.lane import LaneFields
from streaming.feedback_table.opening import create_or_open

#: A reader begins with the newest checkpoint; without one it reads every commit there is.
COMMITS_PER_CHECKPOINT = 100
_DAY_MS = 86_400_000


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
        self._options = dict(storage_options or {})
        self._schema = table_schema(spec)
        create_or_open(uri, spec, self._options)
        self._table = self._load()
        self._since_checkpoint = 0
        self._mark = 0

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
        self._refresh()
        return {partition: self._lane(partition) for partition in partitions}

    def commit(self, rows: pa.Table | None, lanes: Mapping[int, LaneFields]) -> None:
        """Append rows and record what was handled of their lanes, both or neither.

        Raises:
            Fenced: somebody else has committed one of the lanes; nothing was written.
            CommitFailed: nothing was written, or it is not known; ``check`` finds out.
        """
        self.check(lanes)
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
            if self.landed(lanes):
                return
            self.check(lanes)
            raise CommitFailed(" ".join(str(error).split())[:500]) from error
        self._since_checkpoint += 1

    def landed(self, lanes: Mapping[int, LaneFields]) -> bool:
        """Whether the last commit is in the table although it was reported as failed."""
        self._refresh()
        return all(
            self._lane(partition) == fields
            and self._table.transaction_version(self._writer(partition)) == self._mark
            for partition, fields in lanes.items()
        )

    def check(self, lanes: Mapping[int, LaneFields]) -> None:
        """Raises Fenced where lanes are not where a next commit of ours would find them."""
        self._refresh()
        lost = []
        for partition, fields in lanes.items():
            now = self._lane(partition)
            if (0 if now is None else now.commits) != fields.commits - 1:
                lost.append(partition)
        if lost:
            raise Fenced(lost)

    def tidy(self) -> None:
        """Write a checkpoint of the log when it is time; failing to is no harm."""
        if self._since_checkpoint < COMMITS_PER_CHECKPOINT:
            return
        self._since_checkpoint = 0
        try:
            whole = DeltaTable(self._uri, storage_options=self._options)
            whole.create_checkpoint()
            whole.cleanup_metadata()
            self._table = self._load()
        except (DeltaError, OSError) as error:
            raise CommitFailed(f"checkpoint: {error}") from error

    def _load(self) -> DeltaTable:
        # The list of files grows with the table and is of no use to one who appends.
        return DeltaTable(self._uri, storage_options=self._options, without_files=True)

    def _refresh(self) -> None:
        try:
            self._table.update_incremental()
            spec = self._table.metadata().configuration.get("gref.featureSpecSha256")
        except (DeltaError, OSError) as error:
            raise CommitFailed(" ".join(str(error).split())[:500]) from error
        if spec != self.spec.hash():
            raise ContractError(
                f"{self._uri}: the table's feature spec changed while it was written to"
            )

    def _writer(self, partition: int) -> str:
        return f"gref/{self._group}/{partition}/writer"

    def _lane(self, partition: int) -> LaneFields | None:
        values = []
        for name in LANE_FIELDS:
            value = self._table.transaction_version(lane_app_id(self._group, partition, name))
            if value is None:
                return None
            values.append(value)
        return LaneFields(*values)
