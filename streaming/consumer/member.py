"""The loop of one member of the group: poll, join, commit, and what to do when a part is down."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from kafka import OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from contracts.reading import ContractError
from streaming.consumer import parked_records
from streaming.consumer.committing import Committer, positions
from streaming.consumer.dead_letter_sender import DeadLetterSender, NotSent
from streaming.consumer.health import Health
from streaming.consumer.kafka_input import POLL_MS, connect, put_down, read_to_the_end
from streaming.consumer.metrics import ConsumerMetrics
from streaming.consumer.ownership import SIDES, Ownership, check_topics
from streaming.consumer.pausing import Pauses, pauses, urgent
from streaming.consumer.reporting import Reporter
from streaming.consumer.settings import ConsumerSettings
from streaming.consumer.table_sink import CommitFailed, Fenced, TableSink

log = logging.getLogger(__name__)

#: How often at most Kafka is asked where its inputs end, in seconds.
_ENDS_S, _ENDS_WAITING_S = 0.5, 0.05
_LETTERS = 5_000
_BACKOFF_S = (0.5, 30.0)
_NOTHING = Pauses(frozenset(), frozenset(), frozenset())


class GaveUp(Exception):
    """A part was down for longer than --give-up. Nothing is lost: a restart goes on."""


class Member:
    """Reads its lanes until it is told to stop."""

    def __init__(
        self,
        settings: ConsumerSettings,
        sink: TableSink,
        metrics: ConsumerMetrics,
        health: Health,
        stop: threading.Event,
    ) -> None:
        self._settings, self._sink = settings, sink
        self._metrics, self._health, self._stop = metrics, health, stop
        self._sender = DeadLetterSender(settings)
        self._committer = Committer(sink, self._sender, metrics)
        self._own = Ownership(settings, sink, self._flush_before_rebalance)
        self._reporter = Reporter(settings, metrics)
        self._wall = time.time() - time.monotonic()
        self._paused: frozenset[TopicPartition] = frozenset()
        self._pauses = _NOTHING
        self._committed_at = self._ends_at = time.monotonic()
        self._failing_since: float | None = None
        self._retry_at = self._backoff = 0.0
        self._failure = ""

    def run(self, on_ready: Callable[[list[int]], None]) -> None:
        """Join the group and work until ``stop`` is set; then commit and leave.

        Raises:
            ContractError: brokers, topics or offsets are not as they must be.
            GaveUp: the table or the broker was down for too long.
        """
        consumer = connect(self._settings, self._stop)
        if consumer is None:
            return
        self._own.consumer = consumer
        try:
            check_topics(consumer, self._settings)
            consumer.subscribe(list(self._settings.topics), listener=self._own)
            is_ready = False
            while not self._stop.is_set():
                self._turn(consumer)
                if not is_ready and self._own.is_taken:
                    is_ready = True
                    on_ready(sorted(self._own.lanes))
            self._commit_finally()
        finally:
            with self._own.lock:
                self._own.lanes = {}
            try:
                consumer.close(autocommit=False, timeout_ms=5_000)
            except KafkaError as error:
                log.warning("leaving the group: %r", error)
            self._sender.close()

    def _turn(self, consumer: Any) -> None:
        self._health.turn()
        own = self._own
        if own.pending and time.monotonic() >= self._retry_at:
            self._attempt("taking lanes over", own.take_over)
        epoch = own.epoch
        batches = self._poll(consumer)
        now = self._now()
        with own.lock:
            if epoch != own.epoch:
                if batches and not own.pending:
                    own.seek()  # what was read belongs to an earlier assignment
            else:
                self._handle(batches, now)
        self._ask_ends(consumer)
        with own.lock:
            for lane in own.lanes.values():
                lane.advance()
        self._pause(consumer)
        self._commit_when_due(consumer)
        self._reporter.report(consumer, own, self._paused, self._now())
        self._health.not_ready = self._why_not_ready()

    def _why_not_ready(self) -> str:
        if not self._own.is_taken or self._own.pending:
            return self._failure or "has no lanes yet: a rebalance goes on"
        return self._failure or ("memory is full" if self._pauses.stuck else "")

    def _now(self) -> int:
        """Wall-clock ms that never jump."""
        return round((self._wall + time.monotonic()) * 1000)

    # -- Kafka

    def _poll(self, consumer: Any) -> dict[TopicPartition, list[Any]]:
        parked_records.release(consumer)
        put_down(consumer)
        try:
            batches: dict[TopicPartition, list[Any]] = consumer.poll(timeout_ms=POLL_MS)
        except OffsetOutOfRangeError as error:
            raise ContractError(
                f"Kafka has no such offset: {error}. Either its retention deleted what this "
                "group had not read while it ran, then start again; or a topic was made anew, "
                "then name another --group, and a new table for it"
            ) from error
        except NoOffsetForPartitionError:
            return {}  # not taken over yet; the table says from where, not the group
        except KafkaError as error:
            log.warning("poll: %r", error)
            self._stop.wait(0.5)
            return {}
        return batches

    def _handle(self, batches: dict[TopicPartition, list[Any]], now: int) -> None:
        for partition, lane in self._own.lanes.items():
            exposures, feedback = self._own.inputs(partition)
            # Exposures first: less feedback has to wait.
            if exposures in batches:
                lane.exposures(batches[exposures], now)
            if feedback in batches:
                lane.feedback(batches[feedback], now)

    def _ask_ends(self, consumer: Any) -> None:
        """Tell lanes which inputs are read to their end; what they were told of before counts."""
        pause = _ENDS_WAITING_S if self._pauses.waiting else _ENDS_S
        if time.monotonic() < self._ends_at + pause:
            return
        own, epoch = self._own, self._own.epoch
        ended = read_to_the_end(
            consumer, [one for partition in list(own.lanes) for one in own.inputs(partition)]
        )
        now = self._now()
        self._ends_at = time.monotonic()
        with own.lock:
            if epoch != own.epoch:
                return
            for partition, lane in own.lanes.items():
                inputs = own.inputs(partition)
                for side, one in zip(SIDES, inputs):
                    if one in ended:
                        lane.ended(side, ended[one], now)
                    else:
                        lane.not_ended(side)
                lane.quiet(now)

    def _pause(self, consumer: Any) -> None:
        own, settings = self._own, self._settings
        with own.lock:
            if own.pending:
                return
            self._pauses = pauses(
                own.lanes, settings.memory_bytes, settings.join_window + 2 * settings.lateness
            )
            if self._failing_since is not None:
                wanted = {one for partition in own.lanes for one in own.inputs(partition)}
            else:
                wanted = {own.inputs(partition)[side] for partition, side in self._pauses.inputs}
            held = {one for partition in own.lanes for one in own.inputs(partition)}
            now = consumer.paused() & held
            if wanted - now:
                consumer.pause(*(wanted - now))
            if now - wanted:
                consumer.resume(*(now - wanted))
            self._paused = frozenset(wanted)
        self._reporter.stuck(self._pauses.stuck, own.lanes)

    # -- commits

    def _commit_when_due(self, consumer: Any) -> None:
        own, settings, now = self._own, self._settings, time.monotonic()
        if now < self._retry_at or own.pending:
            return
        due = now >= self._committed_at + settings.commit_interval / 1000 or urgent(
            own.lanes, settings.memory_bytes, settings.commit_rows, _LETTERS
        )
        if due and self._attempt("commit", self._commit):
            self._tell_kafka(consumer)

    def _commit(self) -> bool:
        with self._own.lock:
            try:
                self._committer.commit(self._own.lanes, self._now(), send_timeout_s=25.0)
            except Fenced as fenced:
                log.warning("%s; they start again from the table", fenced)
                self._metrics.fenced.inc(len(fenced.partitions))
                self._own.drop(fenced.partitions)
        self._committed_at = time.monotonic()
        return True

    def _attempt(self, what: str, work: Callable[[], bool]) -> bool:
        """Do what may fail for a while; pause and try again with growing waits until --give-up."""
        try:
            done = work()
        except (CommitFailed, NotSent, KafkaError) as error:
            now = time.monotonic()
            since = self._failing_since = self._failing_since or now
            self._backoff = min(_BACKOFF_S[1], max(_BACKOFF_S[0], 2 * self._backoff))
            self._retry_at = now + self._backoff
            self._metrics.failures.inc()
            self._failure = f"{what}: {error}"
            log.error("%s failed, again in %.1f s: %s", what, self._backoff, error)
            if now - since > self._settings.give_up / 1000:
                raise GaveUp(f"{what} has failed for {now - since:.0f} s: {error}") from error
            return False
        self._failing_since, self._backoff, self._retry_at = None, 0.0, 0.0
        self._failure = ""
        return done

    def _tell_kafka(self, consumer: Any) -> None:
        """Group offsets, so that tools which show lag have something to show; no more than that."""
        offsets = {}
        with self._own.lock:
            for partition, lane in self._own.lanes.items():
                if lane.committed is not None:
                    for one, offset in zip(self._own.inputs(partition), positions(lane.committed)):
                        offsets[one] = OffsetAndMetadata(offset, "", -1)
        try:
            if offsets:
                consumer.commit_async(offsets)
        except KafkaError as error:
            log.debug("group offsets: %r", error)

    def _flush_before_rebalance(self) -> None:
        try:
            self._committer.commit(self._own.lanes, self._now(), send_timeout_s=5.0)
        except (CommitFailed, NotSent, Fenced) as error:
            log.warning("not committed before the rebalance: %s; the next owner reads again", error)

    def _commit_finally(self) -> None:
        deadline = time.monotonic() + self._settings.stop_timeout / 1000
        while True:
            try:
                with self._own.lock:
                    self._committer.commit(self._own.lanes, self._now(), send_timeout_s=10.0)
                return
            except Fenced as fenced:
                with self._own.lock:
                    for partition in fenced.partitions:
                        self._own.lanes.pop(partition, None)
            except (CommitFailed, NotSent) as error:
                if time.monotonic() >= deadline:
                    raise GaveUp(f"the last commit failed: {error}") from error
                time.sleep(0.5)
