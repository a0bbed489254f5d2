"""Counts and latencies of a client by release and arm, for Prometheus.

Triton's own numbers cannot tell them: its summaries of an ensemble cannot be aggregated, and it
never sees a request that the client gave up on.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, get_args

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

from handlers.rerank_result import Fallback

#: Seconds. Fine where a rerank lives (1 to 50 ms), coarse where it is lost anyway.
BUCKETS_S = (
    0.001,
    0.002,
    0.003,
    0.004,
    0.005,
    0.0075,
    0.01,
    0.015,
    0.02,
    0.03,
    0.05,
    0.1,
    0.25,
    1.0,
)


class RerankMetrics:
    """``gref_rerank_requests_total{release, arm, outcome}``,
    ``gref_rerank_latency_seconds{release, arm}``, ``gref_rerank_exposures_total{outcome}``,
    ``gref_rerank_relaxed_total{rule}``.

    The arm is that of the exposures: "experiment/arm", joined by "," over several experiments; ""
    outside of experiments. The outcome of a request is ``ok`` or the reason of the fallback. Of an
    exposure: ``taken``; ``lost`` (whoever should send it said so), ``failed`` (it raised an
    exception), ``impossible`` (nothing was shown, or the request was malformed).
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._requests = Counter(
            "gref_rerank_requests",
            "Rerank requests by outcome: ok, or why the given order was shown.",
            ["release", "arm", "outcome"],
            registry=registry,
        )
        self._latency = Histogram(
            "gref_rerank_latency_seconds",
            "Wall time of a rerank call as the ranking server saw it, fallbacks included.",
            ["release", "arm"],
            buckets=BUCKETS_S,
            registry=registry,
        )

        self._exposures = Counter(
            "gref_rerank_exposures",
            "Exposure events handed over for sending, by outcome.",
            ["outcome"],
            registry=registry,
        )

        self._relaxed = Counter(
            "gref_rerank_relaxed",
            "Rules of requests that had to give: pins that do not stand, positions over a limit.",
            ["rule"],
            registry=registry,
        )

        # 0 from the start, so that to an alert the first of a kind is an increase.
        for rule in ("pin", "limit"):
            self._relaxed.labels(rule)
        self._seen: set[tuple[str, str]] = set()

    def count_relaxed(self, pins: int, positions: int) -> None:
        self._relaxed.labels("pin").inc(pins)
        self._relaxed.labels("limit").inc(positions)

    def count_exposure(self, outcome: Literal["taken", "lost", "failed", "impossible"]) -> None:
        self._exposures.labels(outcome).inc()

    def count(
        self, release: str | None, arm: str, fallback: Fallback | None, latency_s: float
    ) -> None:
        name = release or "unknown"
        if (name, arm) not in self._seen:
            for outcome in ("ok", *get_args(Fallback)):
                self._requests.labels(name, arm, outcome)
            self._seen.add((name, arm))
        self._requests.labels(name, arm, fallback or "ok").inc()
        self._latency.labels(name, arm).observe(latency_s)


@lru_cache(maxsize=1)
def default_metrics() -> RerankMetrics:
    """The metrics of this process's default registry; all clients share them."""
    return RerankMetrics()
