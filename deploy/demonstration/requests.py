"""The demo's ranking server: asks a served release for lists, and looks at what it got."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from rich.progress import track

from contracts.datasets import Dataset, read_dataset
from contracts.slate_columns import from_table
from contracts.slates import RerankRequest, Slate
from handlers.client import RerankClient
from training.evaluation.truth import world_of

WARM_UP = 20


@dataclass(frozen=True)
class Served:
    """What a ranking server saw.

    Attributes:
        p50_ms, p99_ms: latency of single requests, one after the other.
        fallbacks: requests that were answered with the given order.
        true_given: mean true expected clicks of the given order; 0 on real data.
        true_gain: mean gain of the served lists over it and half its 95 % interval; None on real
            data, where nobody knows.
    """

    requests: int
    p50_ms: float
    p99_ms: float
    fallbacks: int
    true_given: float
    true_gain: tuple[float, float] | None


def rerank_over_grpc(url: str, release: str, data: Path, count: int) -> Served:
    """Rerank the first ``count`` held-out requests of a dataset, one by one."""
    dataset, spec = read_dataset(data)
    table = pq.read_table(sorted((data / "test").glob("*.parquet"))[0]).slice(0, count)
    slates = from_table(table, spec)
    with RerankClient(url, release, spec=spec, deadline_ms=1000.0) as client:
        client.connect()
        for slate in slates[:WARM_UP]:
            client.rerank(request_of(slate))
        results = [
            client.rerank(request_of(slate))
            for slate in track(slates, "reranking over gRPC", transient=True)
        ]
    latencies = np.array([result.latency_ms for result in results])
    lists = [result.indices for result in results]
    given, gain = _truth(dataset, slates, lists)
    return Served(
        requests=len(results),
        p50_ms=float(np.percentile(latencies, 50)),
        p99_ms=float(np.percentile(latencies, 99)),
        fallbacks=sum(result.fallback is not None for result in results),
        true_given=given,
        true_gain=gain,
    )


def request_of(slate: Slate) -> RerankRequest:
    """The request that a slate answered."""
    return RerankRequest(
        request_id=slate.request_id,
        user=slate.user,
        candidates=slate.candidates,
        user_features=slate.user_features,
        surface=slate.surface,
    )


def _truth(
    dataset: Dataset, slates: Sequence[Slate], lists: Sequence[tuple[int, ...]]
) -> tuple[float, tuple[float, float] | None]:
    if dataset.source != "simulator":
        return 0.0, None
    world = world_of(dataset)
    served = [np.array(one, np.int64) for one in lists]
    first = [np.arange(len(one), dtype=np.int64) for one in lists]
    ours = world.expected_of("click", slates, served)
    theirs = world.expected_of("click", slates, first)
    gain = ours - theirs
    half = 1.96 * float(gain.std(ddof=1)) / len(gain) ** 0.5
    return float(theirs.mean()), (float(gain.mean()), half)
