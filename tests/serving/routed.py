"""What tests of the routed client share: two releases that differ, and what each would answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry

from contracts.encoding import FeatureEncoder
from contracts.events import Exposure
from contracts.experiments import Arm, Exploration
from contracts.reading import canonical_json
from contracts.routing import Routing, compile_routing
from contracts.slates import RerankRequest
from handlers.rerank_metrics import RerankMetrics
from handlers.rerank_result import RerankResult
from handlers.routed_client import AsyncRoutedClient, RoutedClient
from handlers.routing_metrics import RoutingMetrics
from tests.contracts.made_experiments import experiment
from tests.serving.conftest import DEADLINE_MS
from tests.serving.toy_engines import SPEC, toy_modules, toy_request
from training.engines.parity import Engines, answer

#: r0001 and r0002 are of these seeds, so that a list tells which of them made it.
SEEDS = {"r0001": 0, "r0002": 1}
EAGER = {name: Engines(*toy_modules(SPEC, seed), SPEC.list_size) for name, seed in SEEDS.items()}
REQUESTS = [
    msgspec.structs.replace(toy_request(number), user=f"someone-{number}") for number in range(60)
]
WARM = Exploration(share=0.5, temperature=0.8)


def split(weight: float = 0.5, champion: str = "r0001", **changes: Any) -> Routing:
    """One experiment: r0002 gets a share, and half of its requests are explored."""
    arms = (
        Arm(name="control", release="champion", weight=round(1 - weight, 4)),
        Arm(name="fresh", release="r0002", weight=weight, ceiling=1.0, exploration=WARM),
    )
    return compile_routing(champion, [experiment("try", arms=arms, **changes)])


def put(path: Path, routing: Routing) -> Path:
    """Write a routing as a rollout does: beside the file, then a rename."""
    aside = path.with_name(f"{path.name}.new")
    aside.write_bytes(canonical_json(routing))
    aside.replace(path)
    return path


@lru_cache(maxsize=4096)
def _expected(release: str, number: int, temperature: float, seed: int) -> tuple[Any, ...]:
    batch = FeatureEncoder(SPEC).encode([REQUESTS[number]])
    lists = answer(EAGER[release], batch, temperature, [seed])
    order, log_prob = lists.order_BN[0].tolist(), lists.log_prob_BN[0].tolist()
    return tuple(index for index in order if index >= 0), tuple(log_prob)


def expected(
    release: str, request: RerankRequest, temperature: float = 0.0, seed: int = 0
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """List and log-probabilities of the eager model of a release."""
    order, log_prob = _expected(release, REQUESTS.index(request), temperature, seed)
    return order, log_prob


@dataclass
class Asked:
    """A routed client, sync or asyncio, and all that it told."""

    kind: str
    url: str
    path: Path
    options: dict[str, Any] = field(default_factory=dict)
    exposures: list[Exposure] = field(default_factory=list)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.options = {
            "deadline_ms": DEADLINE_MS,
            "metrics": RerankMetrics(self.registry),
            "routing_metrics": RoutingMetrics(self.registry),
            "exposures": self.exposures.append,
            **self.options,
        }
        self._loop = asyncio.new_event_loop()
        make = RoutedClient if self.kind == "threads" else AsyncRoutedClient
        self.client = make(self.url, self.path, **self.options)

    def wait(self, outcome: Any) -> Any:
        return self._loop.run_until_complete(outcome) if self.kind == "asyncio" else outcome

    def rerank(self, request: RerankRequest, **options: Any) -> RerankResult:
        result: RerankResult = self.wait(self.client.rerank(request, **options))
        return result

    def many(self, requests: Sequence[RerankRequest], **options: Any) -> list[RerankResult]:
        results: list[RerankResult] = self.wait(self.client.rerank_many(requests, **options))
        return results

    def connect(self, timeout_s: float = 10.0) -> Any:
        return self.wait(self.client.connect(timeout_s))

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def close(self) -> None:
        self.wait(self.client.close())
        self._loop.close()
