"""Dead letters to their topic: the original bytes, and in the headers why and from where."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from streaming.consumer.dead_letters import DeadLetter
from streaming.consumer.settings import ConsumerSettings

log = logging.getLogger(__name__)

#: What is kept of a message that the dead-letter topic itself refuses for its size.
TRUNCATED_BYTES = 64 * 1024
_LARGEST = 64 << 20


class NotSent(Exception):
    """Dead letters could not be sent; sending them again is safe."""


class DeadLetterSender:
    """Sends dead letters and waits until all replicas have them."""

    def __init__(self, settings: ConsumerSettings) -> None:
        self._settings = settings
        self._producer: Any = None

    def send(self, letters: Mapping[int, Sequence[DeadLetter]], timeout_s: float) -> None:
        """Send the letters of each lane (by partition) and wait; raises NotSent."""
        if not any(letters.values()):
            return
        deadline = time.monotonic() + timeout_s
        try:
            producer = self._open()
            sent = [
                (partition, letter, self._send(producer, partition, letter, letter.value))
                for partition, several in letters.items()
                for letter in several
            ]
            producer.flush(timeout=timeout_s)
            for partition, letter, future in sent:
                try:
                    future.get(timeout=max(0.1, deadline - time.monotonic()))
                except (MessageSizeTooLargeError, RecordListTooLargeError):
                    self._send_truncated(producer, partition, letter, deadline)
        except KafkaError as error:
            self.close()  # an idempotent producer that has failed may not go on
            raise NotSent(f"dead letters: {error!r}") from error

    def close(self) -> None:
        """Give the connection back."""
        if self._producer is not None:
            producer, self._producer = self._producer, None
            producer.close(timeout=1)

    def _open(self) -> Any:
        if self._producer is None:
            self._producer = KafkaProducer(
                **self._settings.kafka,
                bootstrap_servers=list(self._settings.brokers),
                acks="all",
                enable_idempotence=True,
                max_request_size=_LARGEST,
                linger_ms=5,
                max_block_ms=10_000,
                delivery_timeout_ms=20_000,
                request_timeout_ms=10_000,
                allow_auto_create_topics=False,
            )
        return self._producer

    def _send(self, producer: Any, partition: int, letter: DeadLetter, value: bytes | None) -> Any:
        headers = [
            ("reason", letter.reason.encode()),
            ("detail", letter.detail.encode("utf-8", "replace")),
            ("topic", self._settings.topics[letter.side].encode()),
            ("partition", str(partition).encode()),
            ("offset", str(letter.offset).encode()),
        ]
        if value is not letter.value:
            headers.append(("truncated", str(len(letter.value or b"")).encode()))
        return producer.send(
            self._settings.dead_letters, value=value, key=letter.key, headers=headers
        )

    def _send_truncated(
        self, producer: Any, partition: int, letter: DeadLetter, deadline: float
    ) -> None:
        value = (letter.value or b"")[:TRUNCATED_BYTES]
        log.error(
            "%s takes no message of %d bytes (partition %d, offset %d): the first %d are kept; "
            "raise its max.message.bytes above that of the event topics",
            *(self._settings.dead_letters, len(letter.value or b""), partition, letter.offset),
            len(value),
        )
        future = self._send(producer, partition, letter, value)
        future.get(timeout=max(1.0, deadline - time.monotonic()))
