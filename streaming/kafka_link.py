"""The producer's connection to Kafka: a chunk of events in, how many of them are settled out."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from kafka import KafkaProducer
from kafka.errors import (
    InvalidRecordError,
    InvalidTimestampError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)
from kafka.future import Future

from contracts.events import MAX_EVENT_BYTES
from streaming.event_queue import Record

#: Of a broker that will never take this event; whatever else goes wrong may mend.
_REFUSALS = (
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    InvalidRecordError,
    InvalidTimestampError,
)
_NEVER_MS = (1 << 31) - 1
#: Of a chunk: what a batch of it needs is below the limit of a broker that was left as it comes.
CHUNK_RECORDS, CHUNK_BYTES = 500, 1 << 19
_SLICE_S = 0.2

#: What makes the promise; not for callers to change.
GUARANTEES: dict[str, Any] = {
    "acks": "all",
    "enable_idempotence": True,
    # A batch never gives up by itself, so that none overtakes another. The link does, and sends
    # the whole chunk again.
    "delivery_timeout_ms": _NEVER_MS,
    # Nothing leaves before flush(), and then a partition's events of a chunk are one batch, which
    # the broker takes whole or not at all: a later one never stands where an earlier is missing.
    "linger_ms": 60_000,
    "batch_size": 2 * CHUNK_BYTES,
    "key_serializer": None,
    "value_serializer": None,
}
_DEFAULTS: dict[str, Any] = {
    "client_id": "gref-producer",
    # Without the package crc32c kafka-python computes checksums in Python, at 10 to 20 MB/s, over
    # what is left after compression.
    "compression_type": "gzip",
    "max_request_size": MAX_EVENT_BYTES + (1 << 16),
    "bootstrap_timeout_ms": 5_000,
    "max_block_ms": 5_000,
    "request_timeout_ms": 10_000,
    "reconnect_backoff_max_ms": 1_000,
}


@dataclass(frozen=True)
class Outcome:
    """What became of a chunk.

    Attributes:
        settled: the first so many are done with: acknowledged, or refused for good.
        refused: places of those among them that the broker will never take.
        tried: the first so many may have reached the broker.
    """

    settled: int
    refused: tuple[int, ...] = ()
    tried: int = 0


def checked_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of kafka-python's producer (TLS, SASL, sizes, times) over the defaults.

    Raises:
        ValueError: one that it does not know, or that would break the promise.
    """
    unknown = sorted(options.keys() - KafkaProducer.DEFAULT_CONFIG.keys())
    if unknown:
        raise ValueError(f"option {unknown[0]} is none of kafka-python's producer")
    fixed = sorted(options.keys() & {*GUARANTEES, "partitioner", "transactional_id", "retries"})
    if fixed:
        raise ValueError(f"option {fixed[0]} is fixed: delivery in order at least once needs it")
    return {**_DEFAULTS, **options, **GUARANTEES}


class KafkaLink:
    """Connects when first used, and again after ``close``. For one thread."""

    def __init__(self, brokers: str, options: Mapping[str, Any]) -> None:
        self._brokers = brokers
        self._options = checked_options(options)
        self._producer: KafkaProducer | None = None
        #: What went wrong last, in words.
        self.trouble = ""

    def send(self, records: Sequence[Record], stop: threading.Event, limit_s: float) -> Outcome:
        """Send a chunk and wait until all of it is settled; until ``stop`` or the limit at most.

        Where not all is settled, ``close`` before sending the rest again, from its first on: what
        is left in the old connection's buffers must not arrive later.
        """
        futures: list[Any] = []
        self.trouble = ""
        try:
            if self._producer is None:
                self._producer = KafkaProducer(bootstrap_servers=self._brokers, **self._options)
            for record in records:
                try:
                    futures.append(self._producer.send(record.topic, record.value, record.key))
                except _REFUSALS as error:  # larger than max_request_size
                    futures.append(Future().failure(error))
            give_up = time.monotonic() + limit_s
            while not all(future.is_done for future in futures):
                with suppress(KafkaTimeoutError):
                    self._producer.flush(timeout=_SLICE_S)
                    continue
                if stop.is_set() or time.monotonic() > give_up:
                    break
        except Exception as error:  # whatever it is, the events are kept and tried again
            self.trouble = f"{type(error).__name__}: {error}"
        return self._outcome(futures)

    def close(self) -> None:
        """End the connection at once; what was not acknowledged is not sent by it any more."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            producer.close(timeout=0)
        except Exception:
            # With batches left its close gives up before it stops its own thread.
            producer._sender.force_close()

    def _outcome(self, futures: Sequence[Any]) -> Outcome:
        refused: list[int] = []
        for place, future in enumerate(futures):
            if not future.is_done:
                self.trouble = self.trouble or "no answer"
                return Outcome(place, tuple(refused), len(futures))
            if future.failed():
                if not isinstance(future.exception, _REFUSALS):
                    self.trouble = f"{type(future.exception).__name__}: {future.exception}"
                    return Outcome(place, tuple(refused), len(futures))
                refused.append(place)
            elif future.value.offset < 0:
                # "A repetition of what I have": kafka-python believes it. A broker that noted the
                # batch and crashed before it wrote it says so too. A new connection has a new
                # producer id, so that sending again can at worst repeat.
                self.trouble = "acknowledged without an offset"
                return Outcome(place, tuple(refused), len(futures))
        return Outcome(len(futures), tuple(refused), len(futures))
