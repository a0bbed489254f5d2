"""The producer's queue: in memory first, on disk when it has to wait.

Events leave it in the order they came: first those on disk, then those in memory. ``spill`` moves
the ones in memory to the end of those on disk; an event that is being sent stays where it is (or
moves along) until ``drop``.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import NamedTuple

import msgspec

from streaming.producer_metrics import ProducerMetrics
from streaming.spool import Spool

_PIECE_RECORDS, _PIECE_BYTES = 500, 1 << 20
#: What Python adds to the bytes of a record: three objects, a tuple and its place in the queue.
_OBJECT_BYTES = 300


class Record(NamedTuple):
    """A Kafka message to be."""

    topic: str
    key: bytes
    value: bytes


class EventQueue:
    """Thread-safe; ``put`` waits for no disk."""

    def __init__(self, limit_bytes: int, spill_after_s: float, metrics: ProducerMetrics) -> None:
        self._limit_bytes = limit_bytes
        self._spill_after_s = spill_after_s
        self._metrics = metrics
        self._memory: deque[tuple[float, Record]] = deque()
        self._bytes = 0
        self._spool: Spool | None = None
        self._open = True
        #: Guards ``_memory``; nobody holds it while the disk works.
        self._changed = threading.Condition()
        #: Guards the spool, and what is first in the queue. Taken before ``_changed``.
        self._disk = threading.Lock()

    def use(self, spool: Spool) -> None:
        """Begin with what an earlier process left on disk."""
        with self._disk, self._changed:
            self._spool = spool
            self._metrics.spool_events.inc(spool.records)
            self._metrics.spool_bytes.inc(spool.bytes)
            self._metrics.spool_damaged.inc(spool.damaged_bytes)
            self._changed.notify_all()

    def put(self, record: Record) -> bool:
        """Add an event; False where there is no room, or the queue is closed."""
        size = _size(record)
        with self._changed:
            if not self._open or self._bytes + size > self._limit_bytes:
                return False
            self._memory.append((time.monotonic(), record))
            self._bytes += size
            self._metrics.queue_events.inc()
            self._metrics.queue_bytes.inc(size)
            if len(self._memory) == 1 or self._crowded():
                self._changed.notify_all()
        return True

    def take(self, max_records: int, max_bytes: int) -> list[Record]:
        """The first events, which stay in the queue; waits for some. Empty: it was closed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not (self._open and self._empty()))
                if not self._open:
                    return []
            with self._disk:
                found = self._first_on_disk(max_records, max_bytes)
                found = found or self._first_in_memory(max_records, max_bytes)
            if found:
                return found

    def drop(self, count: int) -> None:
        """Forget the first events: they have arrived, or never will."""
        with self._disk:
            if self._spool is not None and self._spool.records:
                before = self._spool.records, self._spool.bytes, self._spool.damaged_bytes
                self._spool.drop(min(count, self._spool.records))
                self._count_spool(*before)
                count -= before[0] - self._spool.records
            self._forget(count)

    def wait_overdue(self) -> bool:
        """Wait until events should be moved to disk; False: the queue was closed."""
        with self._changed:
            while self._open:
                if not self._memory:
                    self._changed.wait()
                elif self._crowded():
                    return True
                else:
                    left = self._memory[0][0] + self._spill_after_s - time.monotonic()
                    if left <= 0:
                        return True
                    self._changed.wait(left)
            return False

    def spill(self) -> bool:
        """Move the events in memory to disk; False where not all could be.

        A full or broken disk leaves them in memory, where they are sent from when their turn comes.
        """
        left = len(self._memory)  # what comes meanwhile is not overdue
        while left > 0:
            with self._disk:
                waiting = self._first_in_memory(min(left, _PIECE_RECORDS), _PIECE_BYTES)
                count = self._to_disk(waiting)
            if count < len(waiting):
                return False
            left -= count or left  # nothing waits any more: all was sent
        return True

    def wait_empty(self, timeout_s: float) -> bool:
        """Wait until every event has left; False where the time did not do."""
        with self._changed:
            return self._changed.wait_for(self._empty, timeout_s)

    def close(self) -> int:
        """Wake everybody; nothing is taken any more. Returns how many events are in memory."""
        with self._changed:
            self._open = False
            self._changed.notify_all()
            return len(self._memory)

    def discard(self) -> None:
        """Let go of what is in memory and of the spool's files, and take it out of the gauges."""
        with self._disk:
            self._forget(len(self._memory))
            if self._spool is not None:
                self._metrics.spool_events.dec(self._spool.records)
                self._metrics.spool_bytes.dec(self._spool.bytes)
                self._spool.close()
                self._spool = None

    def _empty(self) -> bool:
        return not self._memory and not (self._spool is not None and self._spool.records)

    def _crowded(self) -> bool:
        return self._bytes > self._limit_bytes // 2

    def _first_on_disk(self, max_records: int, max_bytes: int) -> list[Record]:
        if self._spool is None or not self._spool.records:
            return []
        before = self._spool.records, self._spool.bytes, self._spool.damaged_bytes
        found: list[Record] = []
        for raw in self._spool.peek(max_records, max_bytes):
            try:
                found.append(msgspec.msgpack.decode(raw, type=Record))
            except msgspec.DecodeError:  # sound bytes, and none of ours
                if not found:
                    self._spool.drop(1)
                    self._spool.damaged_bytes += len(raw)
                break
        self._count_spool(*before)
        return found

    def _first_in_memory(self, max_records: int, max_bytes: int) -> list[Record]:
        found: list[Record] = []
        size = 0
        with self._changed:
            for _, record in self._memory:
                size += _size(record)
                if found and (len(found) == max_records or size > max_bytes):
                    break
                found.append(record)
        return found

    def _to_disk(self, waiting: list[Record]) -> int:
        """Move the first events of the memory; returns how many could be."""
        if self._spool is None:
            return 0
        before = self._spool.records, self._spool.bytes, self._spool.damaged_bytes
        try:
            count = self._spool.append([msgspec.msgpack.encode(record) for record in waiting])
        except OSError:
            self._metrics.spool_errors.inc()
            count = 0
        self._count_spool(*before)
        self._metrics.spooled.inc(count)
        self._forget(count)
        return count

    def _forget(self, count: int) -> None:
        """Take the first events out of memory; the caller holds ``_disk``."""
        with self._changed:
            count = min(count, len(self._memory))
            size = sum(_size(self._memory.popleft()[1]) for _ in range(count))
            self._bytes -= size
            self._metrics.queue_events.dec(count)
            self._metrics.queue_bytes.dec(size)
            self._changed.notify_all()

    def _count_spool(self, records: int, size: int, damaged: int) -> None:
        assert self._spool is not None
        self._metrics.spool_events.inc(self._spool.records - records)
        self._metrics.spool_bytes.inc(self._spool.bytes - size)
        self._metrics.spool_damaged.inc(self._spool.damaged_bytes - damaged)


def _size(record: Record) -> int:
    return len(record.key) + len(record.value) + _OBJECT_BYTES
