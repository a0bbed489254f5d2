"""Scripted messages to a broker that may die at any moment."""

from __future__ import annotations

from collections.abc import Iterable

from kafka import KafkaProducer

from tests.streaming.promise.traffic import Scripted


class Sender:
    """An idempotent producer that asks for all acknowledgements and knows where all lie."""

    def __init__(self, address: str) -> None:
        self._producer = KafkaProducer(
            bootstrap_servers=address,
            acks="all",
            linger_ms=10,
            max_request_size=4 << 20,
            delivery_timeout_ms=120_000,
            request_timeout_ms=10_000,
            reconnect_backoff_max_ms=500,
        )
        self._futures: list = []
        self.sent: list[Scripted] = []

    def send(self, scripted: Iterable[Scripted], partition: int | None = None) -> None:
        """Hand messages over; the key chooses the partition, as it does in production."""
        for one in scripted:
            self._futures.append(
                self._producer.send(one.topic, key=one.key, value=one.value, partition=partition)
            )
            self.sent.append(one)

    def ends(self) -> dict[tuple[str, int], int]:
        """Wait for every acknowledgement; for each partition the offset after its last message."""
        self._producer.flush(120)
        ends: dict[tuple[str, int], int] = {}
        for future in self._futures:
            meta = future.get(timeout=120)
            place = (meta.topic, meta.partition)
            ends[place] = max(ends.get(place, 0), meta.offset + 1)
        return ends

    def close(self) -> None:
        self._producer.close(timeout=5)
