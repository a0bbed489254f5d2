"""Gauges of a member's lanes, about once a second, and the one thing that must be said aloud."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from typing import Any

from kafka import TopicPartition

from streaming.consumer.lane import Lane
from streaming.consumer.metrics import ConsumerMetrics
from streaming.consumer.ownership import Ownership
from streaming.consumer.settings import ConsumerSettings

log = logging.getLogger(__name__)
_EVERY_S, _STUCK_EVERY_S = 1.0, 30.0


class Reporter:
    """Sets the gauges from what the loop holds."""

    def __init__(self, settings: ConsumerSettings, metrics: ConsumerMetrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._reported = self._said = 0.0
        self._lanes: set[int] = set()
        self._lost = 0

    def report(
        self, consumer: Any, own: Ownership, paused: Collection[TopicPartition], now: int
    ) -> None:
        """Set all gauges, if it is time."""
        if time.monotonic() < self._reported + _EVERY_S:
            return
        self._reported = time.monotonic()
        metrics = self._metrics
        with own.lock:
            lanes = dict(own.lanes)
            for lane in lanes.values():
                metrics.count(lane.counts)
            metrics.lost.inc(own.lost_offsets - self._lost)
            self._lost = own.lost_offsets
        metrics.lanes.set(len(lanes))
        for partition in self._lanes - set(lanes):
            self._forget(str(partition))
        self._lanes = set(lanes)
        for partition, lane in lanes.items():
            label = str(partition)
            metrics.open_slates.labels(label).set(len(lane.open))
            metrics.pending.labels(label).set(lane.waiting.count)
            metrics.held.labels(label).set(lane.held_bytes)
            if lane.watermark:
                metrics.delay.labels(label).set((now - lane.watermark) / 1000)
            for one, offset in zip(own.inputs(partition), lane.next):
                highwater = consumer.highwater(one) if one in consumer.assignment() else None
                metrics.paused.labels(one.topic, label).set(one in paused)
                if highwater is not None:
                    metrics.lag.labels(one.topic, label).set(max(0, highwater - offset))

    def stuck(self, partitions: Collection[int], lanes: Mapping[int, Lane]) -> None:
        """Say that lanes are full and cannot become empty by themselves."""
        self._metrics.stuck.set(bool(partitions))
        if partitions and time.monotonic() > self._said + _STUCK_EVERY_S:
            self._said = time.monotonic()
            for partition in partitions:
                lane = lanes[partition]
                log.error(
                    "partition %d: memory is full (%d open slates, %d waiting events, %d MiB) and "
                    "event time stands still at %d; nothing is dropped and nothing more is read. "
                    "Raise --memory, add members, or shorten --join-window",
                    *(partition, len(lane.open), lane.waiting.count, lane.held_bytes >> 20),
                    lane.watermark,
                )

    def _forget(self, partition: str) -> None:
        metrics = self._metrics
        for gauge in (metrics.open_slates, metrics.pending, metrics.held, metrics.delay):
            _remove(gauge, partition)
        for topic in self._settings.topics:
            _remove(metrics.lag, topic, partition)
            _remove(metrics.paused, topic, partition)


def _remove(gauge: Any, *labels: str) -> None:
    try:
        gauge.remove(*labels)
    except KeyError:
        return
