"""What the sync and the asyncio routed client have in common: the routing and its releases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tritonclient.grpc import service_pb2

from contracts.slates import RerankRequest
from handlers.rerank_base import RerankBase
from handlers.rerank_result import RerankResult
from handlers.routed_call import RoutedCall
from handlers.routing_file import RoutingFile
from handlers.routing_metrics import RoutingMetrics, default_routing_metrics
from handlers.served_release import ServedRelease, read_release

#: The longest that a request whose release is gone waits for a fresh look at the routing file. It
#: is half of what is left of the deadline at most, so that the champion can still be asked.
REFRESH_S = 0.1
#: Configurations of releases that are kept, before those are dropped that no routing names.
_KEPT = 16


class RoutedBase(RerankBase):
    """The routing, and each release that was read.

    Attributes:
        routing: the file that is followed; ``routing.current`` is what is in force.
    """

    def __init__(
        self,
        url: str,
        routing_path: str | Path,
        *,
        default_release: str | None = None,
        routing_metrics: RoutingMetrics | None = None,
        **options: Any,
    ) -> None:
        """Make a client and read the routing; nothing is sent yet.

        Args:
            routing_path: the file, ``routing.json``.
            default_release: asked while there is no routing file that can be taken; without it
                that is an error here. Later it never is.
            options: of ``RerankClient``, save ``release`` and ``arm``, which the routing picks.

        Raises:
            ContractError: the routing cannot be read or is none.
        """
        if picked := {"release", "arm"} & options.keys():
            raise TypeError(f"{', '.join(sorted(picked))}: the routing picks that; leave it out")
        super().__init__(url, None, **options)
        self._routing_metrics = routing_metrics or default_routing_metrics()
        self._releases: dict[str, ServedRelease] = {}
        self.routing = RoutingFile(
            routing_path, default_release=default_release, metrics=self._routing_metrics
        )

    def _begin(
        self,
        requests: Sequence[RerankRequest],
        temperature: float | None,
        seeds: Sequence[int] | None,
        deadline_ms: float | None,
    ) -> RoutedCall:
        limit = self.deadline_ms if deadline_ms is None else deadline_ms
        router = self.routing.current  # once: a change while the call is under way is not for it
        return RoutedCall(router, requests, limit, self._list_size, temperature, seeds)

    def _reroute(self, call: RoutedCall, gone: Sequence[int]) -> None:
        for row in gone:
            self._routing_metrics.count_rerouted(call.routes[row].release)

    def _finish(self, call: RoutedCall) -> list[RerankResult]:
        results = call.job.results(self._metrics)
        for row, error in call.job.errors():
            if error.fallback == "unavailable":  # what comes back may not be what went away
                self._releases.pop(results[row].release or "", None)
        return self._report(call.job, results, call.job.first_error())

    def _keep(self, response: service_pb2.ModelConfigResponse, release: str) -> ServedRelease:
        served = read_release(response.config, release, self._spec)
        if len(self._releases) >= _KEPT:
            named = self.routing.current.routing.releases
            self._releases = {k: v for k, v in self._releases.items() if k in named}
        self._releases[release] = served
        self._list_size, self._spec_sha256 = served.spec.list_size, served.spec_sha256
        return served
