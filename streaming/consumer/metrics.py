"""What Prometheus sees of a member. Gauges are set about once a second, never for each message."""

from __future__ import annotations

from collections import Counter as Counts

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from streaming.consumer.dead_letters import REASONS

_LANE = ("partition",)


class ConsumerMetrics:
    """The metrics of one member, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.lag = self._gauge("lag", "Events not yet handled.", ("topic", "partition"))
        self.open_slates = self._gauge("open_slates", "Slates whose window is open.", _LANE)
        self.pending = self._gauge("pending_feedback", "Feedback without an open slate.", _LANE)
        self.held = self._gauge("held_bytes", "Memory of open slates and feedback.", _LANE)
        self.delay = self._gauge(
            "watermark_delay_seconds", "How far the watermark is behind the wall clock.", _LANE
        )
        self.paused = self._gauge("paused", "1 while an input is not read.", ("topic", "partition"))
        self.stuck = self._gauge("stuck", "1 while the open window does not fit into memory.")
        self.lanes = self._gauge("lanes", "Lanes that this member holds.")
        self.events = self._counter("events", "Valid events handled.", ("type",))
        self.rows = self._counter("rows", "Slates written to the table.")
        self.duplicates = self._counter("duplicates", "Events that had come before; dropped.")
        self.dead_letters = self._counter("dead_letters", "Events refused.", ("reason",))
        self.late = self._counter("late", "Exposures and feedback refused for coming late.")
        self.commits = self._counter("commits", "Commits to the table.")
        self.failures = self._counter("commit_failures", "Commits that have to be tried again.")
        self.fenced = self._counter("fenced", "Lanes that turned out to have another owner.")
        self.lost = self._counter(
            "lost_offsets", "Offsets that Kafka deleted before they were read."
        )
        self.commit_seconds = Histogram(
            "gref_consumer_commit_seconds",
            "Dead letters, rows and positions of one commit.",
            registry=self.registry,
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
        )
        for reason in REASONS:
            self.dead_letters.labels(reason)

    def count(self, counts: Counts[str]) -> None:
        """Add what a lane has counted since the last time, and clear it."""
        for name, number in counts.items():
            if name.startswith("dead/"):
                reason = name.removeprefix("dead/")
                self.dead_letters.labels(reason).inc(number)
                if reason.startswith("late_"):
                    self.late.inc(number)
            elif name == "duplicates":
                self.duplicates.inc(number)
            else:
                self.events.labels(name).inc(number)
        counts.clear()

    def _gauge(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(f"gref_consumer_{name}", text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(f"gref_consumer_{name}", text, labels, registry=self.registry)
