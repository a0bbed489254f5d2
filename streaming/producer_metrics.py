"""What a producer counts, for Prometheus."""

from __future__ import annotations

from functools import lru_cache

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge


class ProducerMetrics:
    """``gref_producer_*``. Several producers of a process may share one; gauges are their sum."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"gref_producer_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"gref_producer_{name}", text, registry=registry)

        self.sent = counter("sent", "Events that all in-sync replicas have.", "topic")
        self.spooled = counter("spooled", "Events written to the spool on disk.")
        self.resent = counter("resent", "Events sent again because no answer came to the first.")
        self.dropped = counter("dropped", "Events that are lost, by reason.", "reason")
        for reason in ("invalid", "overflow", "closed", "refused"):
            self.dropped.labels(reason)  # 0 from the start: the first loss is an increase
        self.spool_errors = counter("spool_errors", "Writes that the spool's disk refused.")
        self.spool_damaged = counter(
            "spool_damaged_bytes", "Bytes of the spool that could not be read back."
        )
        self.queue_events = gauge("queue_events", "Events in memory, not acknowledged.")
        self.queue_bytes = gauge("queue_bytes", "Memory that they take, about.")
        self.spool_events = gauge("spool_events", "Events in the spool, not acknowledged.")
        self.spool_bytes = gauge("spool_bytes", "Size of the spool on disk.")
        self.connected = gauge("connected", "1 while the last attempt to send went through.")


@lru_cache(maxsize=1)
def default_metrics() -> ProducerMetrics:
    """The metrics of this process's default registry; all producers share them."""
    return ProducerMetrics()
