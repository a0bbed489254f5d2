"""One call of a routed client without its I/O: which requests go to which release, and how."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from contracts.assignment import Route, Router, seed_of
from contracts.slates import RerankRequest
from handlers.rerank_job import Call, RerankJob
from handlers.served_release import ServedRelease


class RoutedCall:
    """The requests of one ``rerank`` or ``rerank_many``: one job, for several releases.

    Attributes:
        routes: of each request, by the routing that was in force when the call began.
    """

    def __init__(
        self,
        router: Router,
        requests: Sequence[RerankRequest],
        deadline_ms: float,
        list_size: int | None,
        temperature: float | None,
        seeds: Sequence[int] | None,
    ) -> None:
        """Route the requests; the deadline runs from now.

        Args:
            temperature: of all requests, in place of the routing's.
            seeds: of each request, in place of those made of their ids.
        """
        requests = list(requests)
        self.routes = [_route(router, request) for request in requests]
        self.job = RerankJob(
            requests,
            deadline_ms,
            list_size,
            releases=[route.release for route in self.routes],
            arms=[route.arm for route in self.routes],
        )
        self._temperature = temperature
        self._seeds = seeds

    def by_release(self) -> dict[str, list[int]]:
        """The rows that go to each release."""
        rows: dict[str, list[int]] = defaultdict(list)
        for row, route in enumerate(self.routes):
            rows[route.release].append(row)
        return rows

    def prepare(self, served: ServedRelease, rows: Sequence[int]) -> list[Call]:
        """The messages that ask a release for some of the rows."""
        given, seeds = self._temperature, self._seeds
        own = [self.routes[row] for row in rows]
        heats = [route.temperature for route in own] if given is None else given
        if seeds is None:
            if given:  # not drawn by the routing, which has no seed for them then
                own_seeds = [seed_of(self.job.requests[row].request_id) for row in rows]
            else:
                own_seeds = [route.seed for route in own]
        elif len(seeds) == len(self.routes):
            own_seeds = [seeds[row] for row in rows]
        else:
            own_seeds = list(seeds)  # refused, and the message says why
        return self.job.prepare(served, heats, own_seeds, rows)


def _route(router: Router, request: RerankRequest) -> Route:
    try:
        return router.route(request.surface, request.user, request.request_id)
    except (AttributeError, TypeError):  # a malformed request; the job will say of what kind
        return Route(router.routing.champion, "", 0.0, 0)
