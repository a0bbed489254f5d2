"""What an exposure costs a rerank: the callback's time in the caller's thread, by list size, and
whole reranks with and without it, with a broker that is away. Prints; asserts nothing.

    python -m tests.serving.exposure_cost
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from prometheus_client import CollectorRegistry

from handlers.client import RerankClient
from handlers.rerank_exposure import exposure_of
from handlers.rerank_metrics import RerankMetrics
from streaming.producer import EventProducer
from streaming.producer_metrics import ProducerMetrics
from tests.serving.conftest import DEADLINE_MS, local_triton
from tests.serving.toy_engines import toy_request, write_toy_engines
from training.release.publishing import publish

torch.set_num_threads(1)


def percentiles(label: str, work: Callable[[int], object], times: int) -> None:
    taken = []
    for n in range(times):
        start = time.perf_counter()
        work(n)
        taken.append(1000 * (time.perf_counter() - start))
    p50, p99 = np.percentile(taken, [50, 99])
    print(f"{label:45} p50 {p50:7.3f} ms   p99 {p99:7.3f} ms")


def main() -> None:
    with tempfile.TemporaryDirectory() as name, local_triton(Path(name) / "stack") as stack:
        home = Path(name)
        release = stack.load(publish(write_toy_engines(home / "engines"), home / "releases"))
        producer = EventProducer(
            "127.0.0.1:9",
            home / "spool",
            memory_bytes=64 << 20,
            metrics=ProducerMetrics(CollectorRegistry()),
        )

        def client(**options: object) -> RerankClient:
            metrics = RerankMetrics(CollectorRegistry())
            url = stack.state().grpc_url
            return RerankClient(url, release, deadline_ms=DEADLINE_MS, metrics=metrics, **options)

        with client() as plain, client(exposures=producer.send) as reporting:
            for size in (30, 100, 512):
                request = toy_request(1, size)
                result = plain.rerank(request)

                def report(n: int, request: object = request, result: object = result) -> None:
                    producer.send(exposure_of(request, result, time_ms=n))  # type: ignore[arg-type]

                percentiles(f"{size} candidates: exposure alone", report, 500)
                for _ in range(2):
                    for label, one in (
                        ("without", plain),
                        ("with exposures, no broker", reporting),
                    ):
                        percentiles(
                            f"{size} candidates: rerank {label}",
                            lambda n, one=one, request=request: one.rerank(request),
                            200,
                        )
        producer.close(0.1)


if __name__ == "__main__":
    main()
