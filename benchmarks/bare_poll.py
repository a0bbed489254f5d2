"""The floor of any consumer: a kafka-python poll loop that does nothing with what it reads.

kafka-python computes checksums in Python unless the package crc32c is there; that is most of what
a poll costs. This project needs crc32c, kafka-python does not, so that there are two floors.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from benchmarks.process_usage import cpu_seconds
from contracts.reading import Strict

#: A partition by topic and number.
Ends = Mapping[tuple[str, int], int]


class Rate(Strict, kw_only=True, frozen=True):
    """Messages read, in how much time, with how much of the processor."""

    messages: int
    wall_s: float
    cpu_s: float

    @property
    def per_second(self) -> float:
        return self.messages / self.wall_s

    @property
    def per_cpu_second(self) -> float:
        return self.messages / self.cpu_s


def bare_poll(address: str, ends: Ends, crc32c: bool) -> Rate:
    """Read all partitions from their beginning up to ``ends``, in a process of its own.

    Args:
        crc32c: whether checksums are computed in C; otherwise in Python, as by kafka-python alone.
    """
    of_partition = [[topic, number, end] for (topic, number), end in ends.items()]
    done = subprocess.run(
        [sys.executable, __file__, address, json.dumps(of_partition), str(int(crc32c))],
        stdout=subprocess.PIPE,
        check=True,
    )
    return msgspec.json.decode(done.stdout, type=Rate)


def _read(address: str, ends: dict[tuple[str, int], int], crc32c: bool) -> Rate:
    if not crc32c:
        modules: dict[str, Any] = sys.modules
        assert "kafka" not in modules
        modules["crc32c"] = None  # importing it fails, as where it is not installed
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(
        bootstrap_servers=address,
        group_id=None,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    partitions = {TopicPartition(topic, number): end for (topic, number), end in ends.items()}
    consumer.assign(list(partitions))
    consumer.seek_to_beginning()
    wanted, messages = sum(ends.values()), 0
    wall, cpu = time.perf_counter(), cpu_seconds(os.getpid())
    while messages < wanted:
        for batch in consumer.poll(timeout_ms=500).values():
            messages += len(batch)
    rate = Rate(
        messages=messages,
        wall_s=time.perf_counter() - wall,
        cpu_s=cpu_seconds(os.getpid()) - cpu,
    )
    consumer.close()
    return rate


if __name__ == "__main__":
    _, where, text, with_crc32c = sys.argv
    upto = {(topic, number): end for topic, number, end in json.loads(text)}
    sys.stdout.buffer.write(msgspec.json.encode(_read(where, upto, with_crc32c == "1")))
