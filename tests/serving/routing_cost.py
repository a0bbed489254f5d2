"""What the routing costs a request: processor time of picking release, arm and exploration, and of
whole reranks of the client, routed and not, in turns. Prints; asserts nothing.

    python -m tests.serving.routing_cost
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from prometheus_client import CollectorRegistry

from contracts.assignment import Router
from contracts.experiments import Arm, Exploration
from contracts.routing import Routing, compile_routing
from handlers.client import RerankClient
from handlers.rerank_metrics import RerankMetrics
from handlers.routed_call import RoutedCall
from handlers.routed_client import RoutedClient
from handlers.routing_metrics import RoutingMetrics
from tests.contracts.made_experiments import experiment
from tests.serving.conftest import DEADLINE_MS, local_triton
from tests.serving.routed import put
from tests.serving.toy_engines import toy_request, write_toy_engines
from training.release.publishing import publish

torch.set_num_threads(1)

WARM = (
    Arm(name="cold", release="champion", weight=0.5),
    Arm(name="warm", release="champion", weight=0.5, exploration=Exploration(share=0.05)),
)
SAME = tuple(Arm(name=name, release="champion", weight=0.5) for name in ("one", "other"))
ROUTINGS = {
    "no experiment": Routing(champion="r0001"),
    "1 experiment": compile_routing("r0001", [experiment("a", aa=True, arms=SAME)]),
    "2 layers, exploration": compile_routing(
        "r0001",
        [
            experiment("a", aa=True, arms=SAME),
            experiment("b", layer="b", arms=WARM),
        ],
    ),
}


def microseconds(work: Callable[[int], object], times: int) -> float:
    """Processor time of this process for each call, all of its threads together."""
    start = time.process_time()
    for number in range(times):
        work(number)
    return 1e6 * (time.process_time() - start) / times


def in_turns(works: dict[str, Callable[[int], object]], times: int, rounds: int) -> None:
    """Each work in each round, so that what disturbs one disturbs all; medians are printed."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            taken[name].append(microseconds(work, times))
    for name, values in taken.items():
        print(f"{name:45} {np.median(values):8.1f} us")


def main() -> None:
    request = toy_request(1, 30)
    print("picking alone (release, arm, exploration of one request)")
    routers = {name: Router(routing) for name, routing in ROUTINGS.items()}
    in_turns(
        {
            name: lambda n, router=router: router.route("home", f"user-{n}", f"request-{n}")
            for name, router in routers.items()
        },
        20_000,
        5,
    )
    print("a call's beginning: routes, groups and job, before anything is encoded")
    in_turns(
        {
            name: lambda n, router=router: RoutedCall(
                router, [request], 100.0, 5, None, None
            ).by_release()
            for name, router in routers.items()
        },
        10_000,
        5,
    )
    print("a whole rerank of 30 candidates, client's processor time")
    with tempfile.TemporaryDirectory() as name, local_triton(Path(name) / "stack") as stack:
        home = Path(name)
        stack.load(publish(write_toy_engines(home / "engines"), home / "releases"))
        url = stack.state().grpc_url
        options = {"deadline_ms": DEADLINE_MS, "metrics": RerankMetrics(CollectorRegistry())}
        clients = {"RerankClient": RerankClient(url, "r0001", **options)}  # type: ignore[arg-type]
        for number, (label, routing) in enumerate(ROUTINGS.items()):
            path = put(home / f"routing-{number}.json", routing)
            metrics = RoutingMetrics(CollectorRegistry())
            clients[f"RoutedClient, {label}"] = RoutedClient(  # type: ignore[assignment]
                url, path, routing_metrics=metrics, **options
            )
        works = {
            label: lambda n, client=client: client.rerank(request, temperature=0.0)
            for label, client in clients.items()
        }
        for work in works.values():  # warm
            microseconds(work, 100)
        in_turns(works, 300, 9)
        for client in clients.values():
            client.close()


if __name__ == "__main__":
    main()
