"""Which lanes this member owns, and taking one over from where the table says that it stands.

The group's coordinator calls back from kafka-python's own thread. What is called there only notes
what is to be done, or holds ``lock``; nothing that waits for Kafka is ever called with the lock
held, or the two threads would wait for each other.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from kafka import ConsumerRebalanceListener, TopicPartition

from contracts.reading import ContractError
from streaming.consumer.intake import Intake
from streaming.consumer.lane import Lane, LaneFields
from streaming.consumer.settings import ConsumerSettings
from streaming.consumer.table_sink import TableSink
from streaming.consumer.watermark import EXPOSURE, FEEDBACK

log = logging.getLogger(__name__)
SIDES = (EXPOSURE, FEEDBACK)


class Ownership(ConsumerRebalanceListener):  # type: ignore[misc]
    """The lanes of a member.

    Attributes:
        lock: held while lanes are changed.
        lanes: by partition; empty while a rebalance goes on.
        epoch: counts rebalances; what was read in an earlier one is not handled.
        pending: whether lanes are assigned that were not taken over yet.
        is_taken: whether lanes were taken over since the start (there may be none for it).
        lost_offsets: how many offsets Kafka had deleted before they were read.
    """

    def __init__(
        self, settings: ConsumerSettings, sink: TableSink, flush: Callable[[], None]
    ) -> None:
        """``flush`` commits the lanes, as well as it can, before they are given away."""
        self.lock = threading.RLock()
        self.lanes: dict[int, Lane] = {}
        self.epoch = 0
        self.pending = False
        self.is_taken = False
        self.lost_offsets = 0
        self._settings, self._sink, self._flush = settings, sink, flush
        self._intake = Intake(sink.spec, settings.max_skew)
        self._parked: dict[int, Lane] = {}
        self._assigned: frozenset[TopicPartition] = frozenset()
        self.consumer: Any = None

    # -- called by the coordinator

    def on_partitions_revoked(self, revoked: Any) -> None:
        with self.lock:
            if self.lanes:
                self._flush()
            self._park()

    def on_partitions_lost(self, lost: Any) -> None:
        with self.lock:
            log.warning("the group went on without this member; its lanes start again")
            self._park()

    def on_partitions_assigned(self, assigned: Any) -> None:
        with self.lock:
            self._park()
            self._assigned = frozenset(assigned)
            self.pending = True
            # Nothing is read before the table has said from where.
            self.consumer.pause(*assigned)

    # -- called by the loop

    def take_over(self) -> bool:
        """Put assigned lanes where the table says that they stand; True when that is done.

        Raises:
            ContractError: the topics do not fit together.
            CommitFailed, KafkaError: to be tried again.
        """
        epoch, assigned = self.epoch, self._assigned
        partitions = sorted({one.partition for one in assigned})
        inputs = [one for partition in partitions for one in self.inputs(partition)]
        check_topics(self.consumer, self._settings)
        if frozenset(inputs) != assigned:
            raise ContractError(
                "a partition of exposures and that of feedback went to different members; all "
                f"members of group {self._settings.group} must be of this program"
            )
        first = self.consumer.beginning_offsets(inputs, timeout_ms=10_000) if inputs else {}
        fields = self._sink.lanes(partitions)
        with self.lock:
            if epoch != self.epoch:
                return False
            for partition in partitions:
                begin = [first[one] for one in self.inputs(partition)]
                self.lanes[partition] = self._lane(partition, fields[partition], begin)
            self.pending, self.is_taken = False, True
            self._parked = {}
            self.seek()
            self.consumer.resume(*inputs)
            for partition, lane in self.lanes.items():
                log.info("lane %d: %s", partition, lane.standing)
        return True

    def seek(self) -> None:
        """Read on from where the lanes stand."""
        for partition, lane in self.lanes.items():
            for one, offset in zip(self.inputs(partition), lane.next):
                self.consumer.seek(one, offset)

    def drop(self, partitions: tuple[int, ...]) -> None:
        """Forget lanes that have another owner, and ask the table again where they stand."""
        with self.lock:
            for partition in partitions:
                self.lanes.pop(partition, None)
            self._park()
            self.pending = True
            self.consumer.pause(*self._assigned)

    def inputs(self, partition: int) -> tuple[TopicPartition, TopicPartition]:
        """The two inputs of a lane, by side."""
        exposures, feedback = self._settings.topics
        return TopicPartition(exposures, partition), TopicPartition(feedback, partition)

    def _park(self) -> None:
        # A lane that comes back, and that nobody has committed since, goes on as it is.
        self._parked = {**self._parked, **self.lanes}
        self.lanes = {}
        self.epoch += 1

    def _lane(self, partition: int, fields: LaneFields | None, begin: list[int]) -> Lane:
        parked = self._parked.get(partition)
        if parked is not None and parked.committed == fields:
            return parked
        settings = self._settings
        start = (begin[EXPOSURE], begin[FEEDBACK])
        if fields is not None:
            for side, read in zip(SIDES, fields[3:5]):
                if read < begin[side]:
                    self.lost_offsets += begin[side] - read
                    log.error(
                        "%s partition %d: Kafka deleted offsets %d to %d before they were read; "
                        "its retention is shorter than the time this group stood still",
                        *(settings.topics[side], partition, read, begin[side] - 1),
                    )
            fields = fields._replace(
                exposures_position=max(fields.exposures_position, start[EXPOSURE]),
                exposures_read=max(fields.exposures_read, start[EXPOSURE]),
                feedback_position=max(fields.feedback_position, start[FEEDBACK]),
                feedback_read=max(fields.feedback_read, start[FEEDBACK]),
            )
        times = (settings.join_window, settings.lateness)
        return Lane(partition, self._intake, *times, fields, start, settings.idle_after)


def check_topics(consumer: Any, settings: ConsumerSettings) -> None:
    """Raises ContractError where a topic is missing, or the two have different partitions."""
    counts = {}
    for topic in (*settings.topics, settings.dead_letters):
        partitions = consumer.partitions_for_topic(topic)
        if not partitions:
            raise ContractError(
                f"topic {topic} does not exist on {', '.join(settings.brokers)}; create it "
                "(exposures and feedback with the same number of partitions)"
            )
        counts[topic] = len(partitions)
    exposures, feedback = (counts[topic] for topic in settings.topics)
    if exposures != feedback:
        raise ContractError(
            f"{settings.exposures} has {exposures} partitions, {settings.feedback} {feedback}; "
            "they must have the same number, or a request's events lie in different lanes. Add "
            "partitions to the smaller one before anything is sent, or use new topics"
        )
