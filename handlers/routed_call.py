"""One call of a routed client without its I/O: which requests go to which release, and how."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from contracts.assignment import Route, Router, seed_of
from contracts.slates import RerankRequest
from handlers.rerank_job import Call, RerankJob
from handlers.rerank_result import RerankError
from handlers.served_release import ServedRelease


class RoutedCall:
    """The requests of one ``rerank`` or ``rerank_many``: one job, for several releases.

    Attributes:
        routes: of each request, by the routing that was in force when the call began.
    """

    _refused = False

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
        if seeds is not None and len(seeds) != len(requests):
            said = f"{len(seeds)} seeds for {len(requests)} requests"
            self.job.fail_rest(RerankError("bad_request", said))
            self._refused = True

    def by_release(self, rows: Sequence[int] | None = None) -> dict[str, list[int]]:
        """The rows (without them all) that go to each release."""
        if self._refused:
            return {}
        found: dict[str, list[int]] = defaultdict(list)
        for row in range(len(self.routes)) if rows is None else rows:
            found[self.routes[row].release].append(row)
        return found

    def gone_elsewhere(self, router: Router) -> dict[str, list[int]]:
        """The rows whose release is gone where it was asked, though a fresh routing names it.

        Another replica may have it. Not those of the champion, who is asked once more in any case.
        """
        others = set(router.routing.releases) - {router.routing.champion}
        rows = [row for row in self.job.gone() if self.routes[row].release in others]
        return self.by_release(rows)

    def prepare(self, served: ServedRelease, rows: Sequence[int]) -> list[Call]:
        """The messages that ask a release for some of the rows."""
        heats: float | list[float] = [self.routes[row].temperature for row in rows]
        seeds = [self.routes[row].seed for row in rows]
        if self._temperature is not None:
            heats = self._temperature
            if heats:  # the routing, which may not have explored it, has no seed for it then
                seeds = [_seed(self.job.requests[row]) for row in rows]
        if self._seeds is not None:
            seeds = [self._seeds[row] for row in rows]
        return self.job.prepare(served, heats, seeds, rows)


def _seed(request: RerankRequest) -> int:
    try:
        return seed_of(request.request_id)
    except AttributeError:  # a malformed request
        return 0


def _route(router: Router, request: RerankRequest) -> Route:
    try:
        return router.route(request.surface, request.user, request.request_id)
    except (AttributeError, TypeError):  # a malformed request; the job will say of what kind
        return Route(router.routing.champion, "", 0.0, 0)
