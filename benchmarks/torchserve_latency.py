"""TorchServe beside Triton: the same release, the same requests, whole clients, one run.

One request at a time. Calls take turns, so that whatever else the machine does falls on all alike:
ratios carry over, milliseconds are this machine's. Triton's client encodes the features itself and
sends tensors; TorchServe's sends JSON, and the worker encodes. Lists are compared as well.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Optional

import numpy as np
import torch
import typer
from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.random_release import publish_random, random_request
from contracts.reading import Strict, write_json
from contracts.rerank_call import RerankCall
from contracts.slates import RerankRequest
from contracts.torchserve import TorchServeSettings
from deploy.local_torchserve import LocalTorchServe
from deploy.local_triton import LocalTriton
from deploy.triton_process import LOCALHOST, Ports
from handlers.client import RerankClient
from handlers.rerank_metrics import RerankMetrics
from handlers.torchserve_client import GrpcClient, RestClient

EPILOG = """Examples:

python benchmarks/torchserve_latency.py

python benchmarks/torchserve_latency.py --candidates 30 --calls 1000 --out torchserve.json
"""

LIST_SIZE = 10
TRITON, REST, GRPC = "Triton, gRPC", "TorchServe, REST", "TorchServe, gRPC"
_DEADLINE_MS = 60_000.0

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console()


class ServerLatency(Strict, kw_only=True, frozen=True):
    """One row: a server's client at one number of candidates.

    Attributes:
        p50, p99: milliseconds of a call, encoding and checks included.
        ratio: p50 over Triton's.
        other_lists: calls whose list is not Triton's.
    """

    candidates: int
    server: str
    calls: int
    p50: float
    p99: float
    ratio: float
    other_lists: int


Ask = Callable[[RerankRequest], tuple[str, ...]]


@app.command(epilog=EPILOG)
def main(
    candidates: Annotated[Optional[list[int]], typer.Option(help="m; may be repeated.")] = None,
    calls: Annotated[int, typer.Option(min=10, help="Calls of each kind.")] = 300,
    delay: Annotated[int, typer.Option(min=1, help="TorchServe's maxBatchDelay in ms.")] = 1,
    out: Annotated[Optional[Path], typer.Option(help="JSON file of all rows.")] = None,
) -> None:
    """Print p50, p99 and the ratio to Triton for 4 + 4 layers, D = 64, n = 10, H = 4."""
    torch.set_num_threads(1)
    sizes = tuple(candidates or (30, 100, 500))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with console.status("publishing a model of random weights"):
            release = publish_random(folder, LIST_SIZE, sizes)
        with console.status("starting both servers"):
            triton = LocalTriton(folder / "triton", ports=Ports(http=0, grpc=0, metrics=0))
            worker = TorchServeSettings(max_batch_delay=delay)
            served = LocalTorchServe(folder / "torchserve", release, worker=worker)
        with triton, served:
            triton.load(release)
            rows = measure(triton, served, release.name, sizes, calls)
    console.print(_table(rows))
    if out is not None:
        write_json(out, rows)


def measure(
    triton: LocalTriton, served: LocalTorchServe, release: str, sizes: Sequence[int], calls: int
) -> list[ServerLatency]:
    """Measure both servers, up and with the same release.

    Raises:
        RerankError, TorchServeRefusedError: a call was not answered; its time would mean nothing.
    """
    state, token = served.state(), served.token()
    with (
        RerankClient(
            triton.state().grpc_url,
            release,
            deadline_ms=_DEADLINE_MS,
            raise_errors=True,
            metrics=RerankMetrics(CollectorRegistry()),
        ) as client,
        RestClient(LOCALHOST, state.ports.inference, state.model, token) as rest,
        GrpcClient(state.grpc_url, state.model, token) as grpc,
    ):
        asks: dict[str, Ask] = {
            TRITON: lambda request: client.rerank(request).items,
            REST: lambda request: rest.rerank(RerankCall(request=request)).items,
            GRPC: lambda request: grpc.rerank(RerankCall(request=request)).items,
        }
        return [row for m in sizes for row in _measure_size(asks, m, calls)]


def _measure_size(asks: dict[str, Ask], candidates: int, calls: int) -> list[ServerLatency]:
    warmup = max(20, calls // 10)
    requests = [random_request(candidates, LIST_SIZE) for _ in range(min(calls, 100))]
    taken: dict[str, list[float]] = {name: [] for name in asks}
    others = dict.fromkeys(asks, 0)
    turns = track(range(-warmup, calls), f"{candidates} candidates", transient=True)
    for turn in turns:
        request, lists = requests[turn % len(requests)], {}
        for name, ask in asks.items():
            started = time.perf_counter()
            lists[name] = ask(request)
            if turn >= 0:
                taken[name].append(1000 * (time.perf_counter() - started))
        for name in asks:
            others[name] += turn >= 0 and lists[name] != lists[TRITON]
    base = float(np.median(taken[TRITON]))
    return [
        ServerLatency(
            candidates=candidates,
            server=name,
            calls=calls,
            p50=float(np.percentile(times, 50)),
            p99=float(np.percentile(times, 99)),
            ratio=float(np.median(times)) / base,
            other_lists=others[name],
        )
        for name, times in taken.items()
    ]


def _table(rows: Sequence[ServerLatency]) -> Table:
    table = Table(title="whole client, one request at a time, H = 4, n = 10: ms")
    for name in ("m", "server", "p50", "p99", "p50 / Triton's", "other lists"):
        table.add_column(name, justify="left" if name == "server" else "right")
    for row in rows:
        figures = (f"{row.p50:.2f}", f"{row.p99:.2f}", f"{row.ratio:.2f}")
        other = f"{row.other_lists} of {row.calls}"
        table.add_row(str(row.candidates), row.server, *figures, other)
    return table


if __name__ == "__main__":
    app()
