"""A partition that was paused with records left over is read on after it is resumed."""

from __future__ import annotations

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from contracts.events import FEEDBACK
from deploy.local_broker import LocalBroker
from streaming.consumer.parked_records import release
from tests.serving.processes import wait_until

pytestmark = pytest.mark.timeout(120)


def test_records_left_over_come_after_resume(broker: LocalBroker) -> None:
    long, short = TopicPartition(FEEDBACK, 0), TopicPartition(FEEDBACK, 1)
    producer = KafkaProducer(bootstrap_servers=broker.address)
    for partition, count in ((long, 1000), (short, 10)):
        for number in range(count):
            producer.send(FEEDBACK, b"%d" % number, partition=partition.partition)
    producer.flush()
    producer.close()
    consumer = KafkaConsumer(
        bootstrap_servers=broker.address,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_poll_records=300,
    )
    read: dict[TopicPartition, int] = {long: 0, short: 0}

    def reads(partition: TopicPartition, count: int) -> bool:
        release(consumer)
        for one, batch in consumer.poll(200).items():
            read[one] += len(batch)
        return read[partition] >= count

    try:
        consumer.assign([long])
        wait_until(lambda: reads(long, 1), "the first part of the long partition")
        assert read[long] < 1000
        consumer.assign([long, short])
        consumer.pause(long)
        wait_until(lambda: reads(short, 10), "the short partition")
        consumer.resume(long)
        wait_until(lambda: reads(long, 1000), "the rest of the long partition", 30)
    finally:
        consumer.close()
