"""One commit of all lanes of a member: dead letters first, then rows and positions together."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

import pyarrow as pa

from contracts.reading import ContractError
from contracts.slates import Slate
from streaming.consumer.dead_letter_sender import DeadLetterSender
from streaming.consumer.lane import Lane, LaneFields
from streaming.consumer.metrics import ConsumerMetrics
from streaming.consumer.table_sink import TableSink

log = logging.getLogger(__name__)


class Committer:
    """Writes what lanes have closed and refused."""

    def __init__(self, sink: TableSink, sender: DeadLetterSender, metrics: ConsumerMetrics) -> None:
        self._sink, self._sender, self._metrics = sink, sender, metrics
        spec = sink.spec
        self._binary = frozenset(one.kind for one in spec.feedback if one.type == "binary")

    def commit(self, lanes: Mapping[int, Lane], wall: int, send_timeout_s: float) -> bool:
        """Commit what is new in the lanes; returns whether there was anything.

        Raises:
            Fenced: a lane has another owner; nothing was written.
            CommitFailed, NotSent: to be tried again; the lanes are as they were.
        """
        started = time.monotonic()
        if not any(lane.has_news for lane in lanes.values()):
            return False
        # 1. What to say of each lane. Those without news are named too: the table then refuses the
        #    commit of a member that has lost any of its lanes.
        fields = {partition: lane.fields(wall) for partition, lane in lanes.items()}
        # 2. Rows; what the columns refuse becomes a dead letter of this commit.
        rows = self._rows(list(lanes.values()))
        # 3. Dead letters before the positions behind which nobody looks for them again.
        letters = {partition: lane.letters for partition, lane in lanes.items()}
        self._sender.send(letters, send_timeout_s)
        # 4. Rows and positions, both or neither.
        self._sink.commit(rows, fields)
        # 5. Nothing of it is needed in memory any more.
        for partition, one in fields.items():
            lanes[partition].commit_done(one)
        self._metrics.commits.inc()
        self._metrics.rows.inc(0 if rows is None else rows.num_rows)
        self._metrics.commit_seconds.observe(time.monotonic() - started)
        self._sink.tidy()
        return True

    def _rows(self, lanes: list[Lane]) -> pa.Table | None:
        slates = [slate.slate(self._binary) for lane in lanes for slate in lane.closed]
        if not slates:
            return None
        try:
            return self._sink.rows(slates)
        except ContractError:
            # The intake checks every value, so this is a gap in it; one slate stops no other.
            kept: list[Slate] = []
            for lane in lanes:
                for closed in list(lane.closed):
                    slate = closed.slate(self._binary)
                    try:
                        self._sink.rows([slate])
                    except ContractError as error:
                        log.error(
                            "partition %d offset %d: %s", lane.partition, closed.offset, error
                        )
                        lane.refuse_closed(closed, str(error)[:500])
                    else:
                        kept.append(slate)
            return self._sink.rows(kept) if kept else None


def positions(fields: LaneFields) -> tuple[int, int]:
    """The offsets by side at which a new owner starts."""
    return fields.exposures_position, fields.feedback_position
