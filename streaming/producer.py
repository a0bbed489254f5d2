"""Events to Kafka from a ranking server: never slows it, and loses nothing that it can keep.

    from streaming.producer import EventProducer

    producer = EventProducer("kafka-1:9092,kafka-2:9092", Path("/var/spool/gref"))
    client = RerankClient("triton:8001", exposures=producer.send)
    producer.send(FeedbackEvent(...))       # where feedback arrives
    producer.close()                        # before the process ends; SIGTERM included

``send`` puts the event into a queue in memory and returns. One thread sends, with acks=all and
idempotence, keyed by request_id; another moves what waited longer than ``spill_after_s`` to a spool
on disk. A broker that is away is waited for; a process that is killed leaves the spool to the next
one that starts. So an event arrives at least once (consumers tell repetitions by their ids), and
those of one request in order. What is lost is counted, by reason. docs/events.md has the whole.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from contracts.events import (
    EXPOSURES,
    FEEDBACK,
    Event,
    Exposure,
    FeedbackEvent,
    decode_exposure,
    decode_feedback,
    encode_event,
)
from streaming.event_queue import EventQueue, Record
from streaming.kafka_link import CHUNK_BYTES, CHUNK_RECORDS, KafkaLink, checked_options
from streaming.producer_metrics import ProducerMetrics, default_metrics
from streaming.spool import Spool
from streaming.spool_folder import SpoolFolder

log = logging.getLogger("gref.producer")

_BACKOFF_S, _BACKOFF_MAX_S = 0.1, 2.0
#: A spool that is full or whose disk refuses is tried again after this time.
_SPILL_RETRY_S = 0.5


class EventProducer:
    """One for each process; may be shared by threads. After a fork the child has its own queue."""

    def __init__(
        self,
        brokers: str,
        spool: Path,
        *,
        memory_bytes: int = 16 << 20,
        spool_bytes: int = 256 << 20,
        spill_after_s: float = 0.1,
        chunk_timeout_s: float = 30.0,
        metrics: ProducerMetrics | None = None,
        kafka: Mapping[str, Any] | None = None,
    ) -> None:
        """Begin to send what an earlier process left in the spool. Nothing here waits or raises
        for the sake of the broker or the disk.

        Args:
            brokers: host:port, several by commas.
            spool: a folder on a local disk; workers of one machine may name the same.
            memory_bytes, spool_bytes: bounds of the queue in memory and on disk. What comes when
                both are full is dropped and counted.
            spill_after_s: how long an event waits in memory for its acknowledgement before it is
                written to disk; what a kill -9 can cost. 0 writes at once.
            chunk_timeout_s: a broker that takes longer is left and tried anew.
            kafka: further options of kafka-python's producer: TLS, SASL, compression.

        Raises:
            ValueError: impossible options.
        """
        if min(memory_bytes, spool_bytes, chunk_timeout_s) <= 0 or spill_after_s < 0:
            raise ValueError("bounds and times of a producer must be positive")
        checked_options(kafka or {})
        self._brokers, self._kafka = brokers, dict(kafka or {})
        self._spool_root, self._spool_bytes = spool, spool_bytes
        self._memory_bytes, self._spill_after_s = memory_bytes, spill_after_s
        self._chunk_timeout_s = chunk_timeout_s
        self._metrics = metrics or default_metrics()
        self._folder: SpoolFolder | None = None
        self._complained: set[str] = set()
        self._closed = False
        self._begin()
        self._start()
        atexit.register(self.close, 1.0)
        this = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _forked(this()))

    def send(self, event: Event) -> bool:
        """Take an event for sending. Never waits for network or disk, and never raises.

        Returns:
            False if it is lost, which is counted: the contract refuses it, the queue is full, or
            the producer is closed.
        """
        try:
            record = _record_of(event)
        except Exception as error:
            return self._lost("invalid", f"{type(error).__name__}: {error}")
        if not self._started:
            self._start()  # a forked child's first event
        if self._queue.put(record):
            return True
        if self._closed:
            return self._lost("closed", "sent after close()")
        return self._lost("overflow", "memory and spool are full")

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until the broker has every event; False where the time did not do."""
        return self._queue.wait_empty(timeout_s)

    def close(self, timeout_s: float = 10.0) -> bool:
        """Send what can be sent in the time, and leave the rest in the spool for the next process.

        Returns:
            False if events were lost because the spool could not take them either.
        """
        with self._starting:
            if self._closed:
                return True
            self._closed = True
        atexit.unregister(self.close)
        give_up = time.monotonic() + timeout_s
        if self._started:
            self._opened.wait(timeout_s)
            self._queue.wait_empty(max(0.0, give_up - time.monotonic()))
        self._stop.set()
        self._queue.close()
        kept = self._queue.spill()
        for thread in self._threads:
            thread.join(max(0.1, give_up - time.monotonic()))
        lost = 0 if kept else self._queue.close()
        self._metrics.dropped.labels("closed").inc(lost)
        self._queue.discard()
        if self._folder is not None:
            self._folder.release()
        return not lost

    def __enter__(self) -> EventProducer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _begin(self) -> None:
        """An empty queue, and neither threads nor a folder yet."""
        self._queue = EventQueue(self._memory_bytes, self._spill_after_s, self._metrics)
        self._stop, self._opened = threading.Event(), threading.Event()
        self._starting = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._started = self._connected = False

    def _start(self) -> None:
        with self._starting:
            if self._started or self._closed:
                return
            self._started = True
            for work in (self._keep, self._send_all):
                thread = threading.Thread(target=work, name=f"gref-producer{work.__name__}")
                thread.daemon = True
                self._threads.append(thread)
                thread.start()

    def _keep(self) -> None:
        """Open the spool, and move to it what waits too long."""
        try:
            self._folder = SpoolFolder(self._spool_root)
            self._queue.use(Spool(self._folder.path, self._spool_bytes))
        except OSError as error:
            self._metrics.spool_errors.inc()
            log.error("no spool, so what memory cannot hold will be lost: %s", error)
        self._opened.set()
        while self._queue.wait_overdue():
            if not self._queue.spill():
                self._stop.wait(_SPILL_RETRY_S)

    def _send_all(self) -> None:
        """Send chunk after chunk; what did not arrive is sent again, from its first event on."""
        self._opened.wait()
        link = KafkaLink(self._brokers, self._kafka)
        backoff_s, tried = _BACKOFF_S, 0
        while records := self._queue.take(CHUNK_RECORDS, CHUNK_BYTES):
            outcome = link.send(records, self._stop, self._chunk_timeout_s)
            self._metrics.resent.inc(min(tried, outcome.tried))
            self._settle(records, outcome.settled, outcome.refused)
            if outcome.settled == len(records):
                backoff_s, tried = _BACKOFF_S, 0
                self._told("")
                continue
            tried = max(tried, outcome.tried) - outcome.settled
            self._told(link.trouble)
            link.close()
            self._stop.wait(backoff_s)
            backoff_s = min(2 * backoff_s, _BACKOFF_MAX_S)
        link.close()
        self._told("closed")

    def _settle(self, records: list[Record], settled: int, refused: tuple[int, ...]) -> None:
        for place, record in enumerate(records[:settled]):
            if place in refused:
                self._lost(
                    "refused", f"{record.topic} took no event of {len(record.value):,} bytes"
                )
            else:
                self._metrics.sent.labels(record.topic).inc()
        self._queue.drop(settled)

    def _told(self, trouble: str) -> None:
        """Note whether the broker takes events; the log hears of changes alone."""
        if self._connected is not bool(trouble):
            return
        self._connected = not trouble
        self._metrics.connected.inc(-1 if trouble else 1)
        if not self._stop.is_set():
            log.warning("Kafka at %s %s", self._brokers, trouble or "takes events")

    def _lost(self, reason: str, why: str) -> bool:
        """Count a lost event; the first of each reason is told, all are counted."""
        self._metrics.dropped.labels(reason).inc()
        if reason not in self._complained:
            self._complained.add(reason)
            log.error("event lost (%s; further ones are only counted): %s", reason, why)
        return False


def _record_of(event: Event) -> Record:
    """The event as it goes to Kafka, checked as its consumer will check it.

    Raises:
        ContractError: it is not what the contract says; structs do not check types by themselves.
    """
    value = encode_event(event)
    if isinstance(event, Exposure):
        decode_exposure(value)
        return Record(EXPOSURES, event.request_id.encode(), value)
    if isinstance(event, FeedbackEvent):
        decode_feedback(value)
        return Record(FEEDBACK, event.request_id.encode(), value)
    raise TypeError(f"{type(event).__name__} is no event")


def _forked(producer: EventProducer | None) -> None:
    """A forked child starts anew: the queue, its threads and the spool are its parent's."""
    if producer is not None and not producer._closed:
        if producer._folder is not None:
            producer._folder.release()
            producer._folder = None
        producer._begin()
