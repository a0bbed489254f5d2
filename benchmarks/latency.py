"""What a reranked list costs: encoder and decode, eager and compiled, and the way over gRPC.

One command, one run: the ratios of a row were taken in the same minute and carry over; the
milliseconds are this machine's. Weights are random, on which times do not depend.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Optional

import msgspec
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.decode import measure
from benchmarks.grpc_floor import GrpcFloor, measure_grpc_floor
from benchmarks.random_release import publish_random, random_request
from contracts.reading import write_json
from deploy.local_triton import LocalTriton
from deploy.triton_process import Ports

EPILOG = """Examples:

python benchmarks/latency.py

python benchmarks/latency.py --candidates 30 --heads 4 --batch 1 --rounds 50 --out latency.json
"""

LIST_SIZE = 10

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console()


@app.command(epilog=EPILOG)
def main(
    candidates: Annotated[Optional[list[int]], typer.Option(help="m; may be repeated.")] = None,
    heads: Annotated[Optional[list[int]], typer.Option(help="H; may be repeated.")] = None,
    batch: Annotated[Optional[list[int]], typer.Option(help="Rows; may be repeated.")] = None,
    rounds: Annotated[int, typer.Option(min=3, help="Timed rounds of each row.")] = 30,
    calls: Annotated[int, typer.Option(min=10, help="gRPC calls of each kind.")] = 300,
    threads: Annotated[int, typer.Option(min=1, help="torch threads.")] = 1,
    grpc: Annotated[bool, typer.Option(help="Also measure on a real Triton.")] = True,
    out: Annotated[Optional[Path], typer.Option(help="JSON file of all rows.")] = None,
) -> None:
    """Print times of the paper's 4 + 4 layers, D = 64, n = 10, on the CPU."""
    torch.set_num_threads(threads)
    sizes = [
        (m, h, b)
        for b in batch or (1, 64)
        for h in heads or (1, 2, 4, 8)
        for m in candidates or (20, 30, 50, 100, 200, 500)
    ]
    rows = [
        measure(m, h, b, LIST_SIZE, rounds if b == 1 else max(3, rounds // 6))
        for m, h, b in track(sizes, "measuring engines", transient=True)
    ]
    console.print(_engine_table(rows, threads))
    floors: list[GrpcFloor] = []
    if grpc:
        with tempfile.TemporaryDirectory() as folder, console.status("measuring over gRPC"):
            floors = over_grpc(Path(folder), tuple(candidates or (30, 100, 500)), calls)
        console.print(_grpc_table(floors))
    if out is not None:
        write_json(out, {"engines": rows, "grpc": msgspec.to_builtins(floors)})


def over_grpc(folder: Path, candidates: tuple[int, ...], calls: int) -> list[GrpcFloor]:
    """Publish a model of random weights, serve it, and measure each number of candidates."""
    release = publish_random(folder, LIST_SIZE, candidates)
    with LocalTriton(folder / "stack", ports=Ports(http=0, grpc=0, metrics=0)) as triton:
        triton.load(release)
        return [
            measure_grpc_floor(triton, release.name, [random_request(m, LIST_SIZE)], calls)
            for m in candidates
        ]


def _engine_table(rows: list[dict[str, float]], threads: int) -> Table:
    table = Table(
        title=f"n = {LIST_SIZE}, 4 + 4 layers, D = 64, {threads} thread(s): median ms",
        caption="enc, dec: engines; dec 1: the engine that decodes one item at a time; "
        "x: one at a time / OMTP, of the decode step and with the encoder",
    )
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()))
    return table


def _grpc_table(floors: list[GrpcFloor]) -> Table:
    table = Table(
        title="gRPC, one request at a time, H = 4: p50 / p99 ms",
        caption="floor: an ensemble of two empty models; engines: without a server; client: "
        "encoding and checks included; added: (release - engines) / floor, p50",
    )
    for name in ("M", "floor", "engines", "release", "client", "added"):
        table.add_column(name, justify="right")
    for one in floors:
        shown = (one.floor, one.engines, one.release, one.client)
        pairs = [f"{ms.p50:.2f} / {ms.p99:.2f}" for ms in shown]
        table.add_row(str(one.candidates), *pairs, f"{one.added:.2f}")
    return table


if __name__ == "__main__":
    app()
