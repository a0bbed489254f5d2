"""Ranking servers under load during rollouts: every answer is checked as it comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import CollectorRegistry

from contracts.assignment import Router
from contracts.slates import RerankRequest
from handlers.rerank_metrics import RerankMetrics
from handlers.rerank_result import RerankResult
from handlers.routed_client import RoutedClient
from handlers.routing_metrics import RoutingMetrics
from tests.rollout.light_releases import list_of
from tests.serving.toy_engines import SPEC, toy_request


@dataclass
class Seen:
    """What the traffic has met.

    Attributes:
        wrong: answers that are none, or not those of the assigned arm's release.
        by_release: answers of each release. arms: labels that were met.
        first: when a release was first seen as an answer's, of each change of the champion.
    """

    answers: int = 0
    wrong: list[str] = field(default_factory=list)
    by_release: dict[str, int] = field(default_factory=dict)
    arms: set[str] = field(default_factory=set)
    changes: list[tuple[str, float, float]] = field(default_factory=list)


@contextmanager
def traffic(
    addresses: Sequence[str], routing: Path, threads: int = 3, pause_s: float = 0.003
) -> Iterator[Seen]:
    """Each thread is a ranking server with a client of its own; they go round all replicas."""
    seen, stop, lock = Seen(), threading.Event(), threading.Lock()
    url = "ipv4:" + ",".join(addresses)

    def serve(number: int) -> None:
        registry = CollectorRegistry()
        with RoutedClient(
            url,
            routing,
            deadline_ms=20_000.0,  # a busy machine must not turn this into a test of speed
            metrics=RerankMetrics(registry),
            routing_metrics=RoutingMetrics(registry),
        ) as client:
            last = ""
            count = number
            while not stop.wait(pause_s):
                count += threads
                request = toy_request(count)
                before = client.routing.current
                result = client.rerank(request)
                came = time.perf_counter()
                routers = {id(one): one for one in (before, client.routing.current)}.values()
                with lock:
                    seen.answers += 1
                    release = result.release or "none"
                    seen.by_release[release] = seen.by_release.get(release, 0) + 1
                    if wrong := _wrong(request, result, list(routers)):
                        seen.wrong.append(wrong)
                    seen.arms.update(r.route("", request.user, request.request_id).arm
                                     for r in routers)  # fmt: skip
                    champion = before.routing.champion
                    if release == champion != last and not before.routing.experiments:
                        seen.changes.append((champion, came, result.latency_ms))
                        last = champion

    workers = [threading.Thread(target=serve, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield seen
    finally:
        stop.set()
        for worker in workers:
            worker.join()


def _wrong(request: RerankRequest, result: RerankResult, routers: list[Router]) -> str:
    """What is wrong with an answer, by the routings that were in force while it was made."""
    if result.fallback is not None:
        return f"{request.request_id}: {result.fallback}: {result.error}"
    routes = [one.route(request.surface, request.user, request.request_id) for one in routers]
    if result.release not in [route.release for route in routes]:
        return f"{request.request_id}: {result.release} answered, not {routes}"
    order = list_of(result.release or "", len(request.candidates), SPEC.list_size)
    if list(result.indices) != order:
        return f"{request.request_id}: {result.indices} is not a list of {result.release}"
    return ""
