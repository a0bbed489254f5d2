"""What a client says of its routing, for Prometheus."""

from __future__ import annotations

import contextlib
import time
from functools import lru_cache
from typing import Literal

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge

#: Why the file was not taken: not there; not to be read (permission, I/O); or not what it must be.
Reason = Literal["missing", "unreadable", "invalid"]


class RoutingMetrics:
    """``gref_client_routing_errors_total{reason}``: files that were not taken, each once.
    ``gref_client_routing_stale``: 1 while the file is not what is in force, else 0.
    ``gref_client_routing_info{sha}``: 1 for the routing in force, by the start of its SHA-256.
    ``gref_client_routing_loaded_timestamp_seconds``: when that was read.
    ``gref_client_rerouted_total{release}``: requests for which the champion was asked, because the
    server had no such release.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._errors = Counter(
            "gref_client_routing_errors",
            "Routing files that were not taken, by reason; the last good one stays in force.",
            ["reason"],
            registry=registry,
        )
        for reason in ("missing", "unreadable", "invalid"):
            self._errors.labels(reason)  # 0 from the start, so that a first error is an increase
        self._stale = Gauge(
            "gref_client_routing_stale",
            "1 while the routing file is not what is in force.",
            registry=registry,
        )
        self._info = Gauge(
            "gref_client_routing_info",
            "The routing in force, by the first 12 digits of the file's SHA-256.",
            ["sha"],
            registry=registry,
        )
        self._loaded = Gauge(
            "gref_client_routing_loaded_timestamp_seconds",
            "When the routing in force was read, Unix time.",
            registry=registry,
        )
        self._rerouted = Counter(
            "gref_client_rerouted",
            "Requests for which the champion was asked, the server having no such release.",
            ["release"],
            registry=registry,
        )

    def loaded(self, sha: str, before: str) -> None:
        """A routing is in force; ``before`` is the one that it replaces."""
        if before and before != sha:
            with contextlib.suppress(KeyError):  # another client of this process has removed it
                self._info.remove(before)
        self._info.labels(sha).set(1)
        self._loaded.set(time.time())

    def stale(self, is_stale: bool) -> None:
        self._stale.set(is_stale)

    def count_error(self, reason: Reason) -> None:
        self._errors.labels(reason).inc()

    def count_rerouted(self, release: str) -> None:
        self._rerouted.labels(release).inc()


@lru_cache(maxsize=1)
def default_routing_metrics() -> RoutingMetrics:
    """The metrics of this process's default registry; all clients share them."""
    return RoutingMetrics()
