"""What a topic holds, read by a consumer of the test's own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from tests.serving.processes import wait_until


def read_records(address: str, topic: str, expected: int, limit_s: float = 60.0) -> list[Any]:
    """The records of a topic, partition by partition: as many as expected, or more if there are.

    The end of a partition cannot be asked for (see ``LocalBroker``).
    """
    consumer = KafkaConsumer(bootstrap_servers=address, group_id=None)
    try:
        consumer.assign([TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic)])
        consumer.seek_to_beginning()
        found: list[Any] = []

        def poll(timeout_ms: int) -> bool:
            records = consumer.poll(timeout_ms)
            found.extend(record for part in records.values() for record in part)
            return len(found) >= expected

        wait_until(lambda: poll(200), f"{expected} messages in {topic}", limit_s)
        while poll(700) and len(found) > expected:
            expected = len(found)  # more than that are coming
        return sorted(found, key=lambda record: (record.partition, record.offset))
    finally:
        consumer.close()


def first_times(values: Iterable[Any]) -> list[Any]:
    """The values without their repetitions, in the order in which they came first."""
    return list(dict.fromkeys(values))
