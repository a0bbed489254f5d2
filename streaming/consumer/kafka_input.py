"""The consumer of kafka-python as the loop needs it: connected, asked for ends, never stuck."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from contracts.reading import ContractError
from streaming.consumer.settings import ConsumerSettings

log = logging.getLogger(__name__)
POLL_MS = 200


def connect(settings: ConsumerSettings, stop: threading.Event) -> Any:
    """A connected consumer that has joined nothing yet; None when told to stop meanwhile.

    Raises:
        ContractError: no broker answers within ``settings.broker_timeout``.
    """
    deadline = time.monotonic() + settings.broker_timeout / 1000
    while not stop.is_set():
        try:
            return KafkaConsumer(
                **{
                    "max_partition_fetch_bytes": 2 << 20,
                    "fetch_max_bytes": 16 << 20,
                    "fetch_max_wait_ms": POLL_MS,
                    "reconnect_backoff_max_ms": 1_000,
                    "metrics_enabled": False,
                    **settings.kafka,
                },
                bootstrap_servers=list(settings.brokers),
                bootstrap_timeout_ms=5_000,
                group_id=settings.group,
                session_timeout_ms=settings.session_timeout,
                heartbeat_interval_ms=max(200, settings.session_timeout // 6),
                enable_auto_commit=False,
                auto_offset_reset="none",
                allow_auto_create_topics=False,
                max_poll_records=settings.poll_records,
            )
        except KafkaError as error:
            if time.monotonic() >= deadline:
                raise ContractError(
                    f"no broker answers at {', '.join(settings.brokers)}: {error!r}"
                ) from error
            stop.wait(0.5)
    return None


def read_to_the_end(consumer: Any, inputs: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    """Those of the inputs that are read to their end, with their positions.

    Where an input ends is asked now, after all that was read has been handled. A fetch tells too,
    but not when; and a broker may answer the question with less than it has (Tansu does), so that
    both must say so. None are found while the broker does not answer.
    """
    reached = {}
    try:
        for one in inputs:
            highwater = consumer.highwater(one)
            if highwater is not None:
                position = consumer.position(one, timeout_ms=0)
                if position is not None and position >= highwater:
                    reached[one] = position
        ends = consumer.end_offsets(list(reached), timeout_ms=2_000) if reached else {}
    except (KafkaError, AssertionError) as error:  # an input that is not assigned any more
        log.warning("asking for ends: %r", error)
        return {}
    return {one: at for one, at in reached.items() if one in ends and at >= ends[one]}


def put_down(consumer: Any) -> None:
    """Let a consumer take back what it has fetched of inputs that were paused and are read again.

    kafka-python 3.0 puts that aside, and takes it back only while it has no partition in hand; one
    that it has read to the end counts as in hand until the next fetch brings something. On quiet
    traffic that is never, so what is used up is put down here, before each poll.
    """
    fetcher = getattr(consumer, "_fetcher", None)
    in_hand = getattr(fetcher, "_next_partition_records", None)
    if in_hand is not None and not in_hand:
        fetcher._next_partition_records = None  # type: ignore[union-attr]
