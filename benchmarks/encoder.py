"""What it costs a ranking server to encode requests: contracts/encoding.py, on one core.

python benchmarks/encoder.py
python benchmarks/encoder.py --requests 1 --candidates 512
"""

from __future__ import annotations

import random
import time
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from contracts.encoding import FeatureEncoder
from contracts.features import Categorical, Dense, FeatureGroup, FeatureSpec, FeedbackKind
from contracts.slates import Candidate, RerankRequest


def make_spec(categorical: int, dense: int) -> FeatureSpec:
    """Item features: the id, hashed and looked-up categories in turn, and dense ones."""
    vocabulary = tuple(f"v{i}" for i in range(400))
    columns = [
        Categorical(name=f"c{i}", width=8, buckets=10_000)
        if i % 2
        else Categorical(name=f"c{i}", width=8, vocabulary=vocabulary)
        for i in range(categorical - 1)
    ]
    return FeatureSpec(
        user=FeatureGroup(
            categorical=(Categorical(name="user", width=8, buckets=10_000),),
            dense=(Dense(name="age", mean=30.0, std=10.0),),
        ),
        item=FeatureGroup(
            categorical=(Categorical(name="item", width=8, buckets=100_000), *columns),
            dense=tuple(Dense(name=f"d{i}", transform="log1p") for i in range(dense)),
        ),
        list_size=10,
        feedback=(FeedbackKind(kind="click", type="binary"),),
        utility="click",
    )


def make_requests(spec: FeatureSpec, requests: int, candidates: int) -> list[RerankRequest]:
    """Items and categories repeat as they do in traffic; one value in twenty is missing."""
    rng = random.Random(0)

    def value(name: str) -> str | float | None:
        if rng.random() < 0.05:
            return None
        return rng.random() if name.startswith("d") else f"v{rng.randrange(500)}"

    names = [category.name for category in spec.item.categorical[1:]]
    names += [number.name for number in spec.item.dense]
    return [
        RerankRequest(
            request_id=str(request),
            user=f"u{rng.randrange(10_000)}",
            user_features={"age": rng.randrange(80)},
            candidates=tuple(
                Candidate(
                    item=str(rng.randrange(50_000)), features={name: value(name) for name in names}
                )
                for _ in range(candidates)
            ),
        )
        for request in range(requests)
    ]


def main(
    requests: Annotated[int, typer.Option(min=1, help="Requests in a batch.")] = 64,
    candidates: Annotated[int, typer.Option(min=1, max=512, help="Candidates each.")] = 100,
    categorical: Annotated[int, typer.Option(min=1, help="Categorical item features.")] = 8,
    dense: Annotated[int, typer.Option(min=0, help="Dense item features.")] = 3,
    repeats: Annotated[int, typer.Option(min=1, help="Measured batches.")] = 50,
) -> None:
    """Time the encoding of a batch of requests: first call (empty cache) and then warm.

    Examples: ``python benchmarks/encoder.py --requests 1 --candidates 512``
    """
    spec = make_spec(categorical, dense)
    batch = make_requests(spec, requests, candidates)
    encoder = FeatureEncoder(spec)
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        encoder.encode(batch)
        times.append(1e3 * (time.perf_counter() - start))
    first, warm = times[0], np.array(times[1:])
    table = Table(
        title=f"{requests} requests x {candidates} candidates, "
        f"{categorical} categorical + {dense} dense item features"
    )
    for column in ("first, ms", "median, ms", "fastest, ms", "p99, ms", "µs per candidate"):
        table.add_column(column, justify="right")
    median = float(np.median(warm))
    figures = (first, median, warm.min(), np.quantile(warm, 0.99))
    table.add_row(*(f"{x:.2f}" for x in figures), f"{1e3 * median / (requests * candidates):.2f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
