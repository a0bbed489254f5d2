"""The sender of the soak: as fast as it may, in a thread of its own."""

from __future__ import annotations

import threading
from typing import Any

from kafka import KafkaProducer

from benchmarks.feedback_traffic import FeedbackTraffic

_PORTION = 500


class Feeder:
    """Sends a number of events and what closes the last slates.

    Attributes:
        sent: messages handed over so far.
        error: what ended it early, if anything did.
    """

    def __init__(
        self, address: str, traffic: FeedbackTraffic, events: int, partitions: int
    ) -> None:
        self.sent = 0
        self.error: Exception | None = None
        self._traffic, self._events, self._partitions = traffic, events, partitions
        self._producer = KafkaProducer(
            bootstrap_servers=address,
            acks="all",
            linger_ms=20,
            batch_size=1 << 18,
            delivery_timeout_ms=120_000,
            request_timeout_ms=10_000,
            reconnect_backoff_max_ms=500,
        )
        self._allowed = _PORTION
        self._may_send = threading.Condition()
        self._closed = False
        self._ends: dict[tuple[str, int], int] = {}

    def allow(self, sent: int) -> None:
        """Let it go on until so many messages are sent."""
        with self._may_send:
            self._allowed = sent
            self._may_send.notify()

    def close(self) -> None:
        """Send no more."""
        with self._may_send:
            self._closed = True
            self._may_send.notify()
        self._producer.close(timeout=2)

    def ends(self) -> dict[tuple[str, int], int]:
        """For each partition the offset after its last message; complete when ``run`` is done."""
        return dict(self._ends)

    def run(self) -> None:
        try:
            while self.sent < self._events and not self._closed:
                with self._may_send:
                    self._may_send.wait_for(lambda: self.sent < self._allowed or self._closed)
                self._send([(-1, one) for one in self._traffic.records(_PORTION)])
            self._send(list(self._traffic.rest(self._partitions)))
        except Exception as error:
            self.error = error

    def _send(self, records: list[tuple[int, Any]]) -> None:
        sent = [
            self._producer.send(
                topic, key=key, value=value, partition=None if partition < 0 else partition
            )
            for partition, (topic, key, value) in records
        ]
        for future in sent:
            meta = future.get(timeout=120)
            place = (meta.topic, meta.partition)
            self._ends[place] = max(self._ends.get(place, 0), meta.offset + 1)
        self.sent += len(sent)
