"""What a reranked list costs: encoder and decode, eager and compiled, and the way over gRPC.

One command, one run: the ratios of a row were taken in the same minute and carry over; the
milliseconds are this machine's. Weights are random, on which times do not depend.
"""

from __future__ import annotations

import tempfile
from itertools import product
from pathlib import Path
from typing import Annotated, Optional

import msgspec
import torch
import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.arithmetic import matrix_rate
from benchmarks.decode import FORMATS, Row, bench_spec, build, measure
from benchmarks.grpc_floor import GrpcFloor, measure_grpc_floor
from benchmarks.peer_timing import clock_of, make_folders
from benchmarks.random_release import publish_random, random_request
from benchmarks.rounds import Clock
from contracts.reading import convert, write_json
from deploy.local_triton import LocalTriton
from deploy.triton_process import Ports
from training.command import exit_codes
from training.engines.formats import EngineSettings
from training.model.gen_reranker import GenReranker
from training.settings import ModelSettings

EPILOG = """Examples:

python benchmarks/latency.py

python benchmarks/latency.py --engine torchscript --engine aotinductor --candidates 30 --heads 4 --no-grpc --clock cpu --json engines.json
"""  # noqa: E501

LIST_SIZE = 10
HEADS = (1, 2, 4, 8)

#: Headings of columns, where the name is long.
_SHORT = {
    "encode": "enc",
    "decode": "dec",
    "batch": "B",
    "of_eager": "/eager",
    "without_omtp": "OMTP x",
    "unused_rules": "rules x",
    "of_limit": "lim",
}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console()


@app.command(epilog=EPILOG)
def main(
    candidates: Annotated[Optional[list[int]], typer.Option(help="m; may be repeated.")] = None,
    heads: Annotated[Optional[list[int]], typer.Option(help="H; may be repeated.")] = None,
    batch: Annotated[Optional[list[int]], typer.Option(help="Rows; may be repeated.")] = None,
    engine: Annotated[
        Optional[list[str]],
        typer.Option(help="torchscript or aotinductor; may be repeated. Eager always runs."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=3, help="Timed rounds of each row.")] = 30,
    clock: Annotated[str, typer.Option(help="wall, or cpu: this process's own time.")] = "wall",
    calls: Annotated[int, typer.Option(min=10, help="gRPC calls of each kind.")] = 300,
    threads: Annotated[int, typer.Option(min=1, help="torch threads.")] = 1,
    grpc: Annotated[bool, typer.Option(help="Also measure on a real Triton.")] = True,
    serve: Annotated[str, typer.Option(help="What that serves: one of --engine.")] = "torchscript",
    json: Annotated[
        Optional[Path], typer.Option("--json", "--out", help="JSON file of all rows.")
    ] = None,
) -> None:
    """Print times of the paper's 4 + 4 layers, D = 64, n = 10, on the CPU.

    Every format that is asked for is timed by turns with eager. AOTInductor takes minutes of g++
    for each H.
    """
    with exit_codes():
        engines = ("eager", *(engine or ["torchscript"]))
        if unknown := [name for name in engines if name not in FORMATS]:
            raise ValueError(f"--engine {unknown[0]}; allowed: {', '.join(FORMATS[1:])}")
        if serve not in FORMATS[1:]:
            raise ValueError(f"--serve {serve}; allowed: {', '.join(FORMATS[1:])}")
        read = clock_of(clock, "cpu", threads)
        make_folders(json)
        torch.set_num_threads(threads)
        rate = matrix_rate()
        ms, batches = candidates or [20, 30, 50, 100, 200, 500], batch or [1, 64]
        rows: list[Row] = []
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("engines", total=len(heads or HEADS) * len(ms) * len(batches))
            for h in heads or HEADS:
                torch.manual_seed(0)
                model = GenReranker(bench_spec(LIST_SIZE), ModelSettings(heads=h)).eval()
                with tempfile.TemporaryDirectory() as folder:
                    ways = {name: build(model, name, Path(folder)) for name in engines}
                    for b, m in product(batches, ms):
                        count = rounds if b == 1 else max(3, rounds // 3)
                        rows += measure(model, ways, m, b, count, read, rate)
                        progress.advance(task)
        console.print(_engine_table(rows, threads, read, rate))
        floors: list[GrpcFloor] = []
        if grpc:
            with tempfile.TemporaryDirectory() as folder, console.status("measuring over gRPC"):
                shown = tuple(candidates or (30, 100, 500))
                floors = over_grpc(Path(folder), shown, calls, serve)
            console.print(_grpc_table(floors))
        if json is not None:
            both = {"engines": msgspec.to_builtins(rows), "grpc": msgspec.to_builtins(floors)}
            write_json(json, {"clock": read, "matrix_rate": rate, **both})


def over_grpc(
    folder: Path, candidates: tuple[int, ...], calls: int, engine: str = "torchscript"
) -> list[GrpcFloor]:
    """Publish a model of random weights, serve it, and measure each number of candidates."""
    settings = convert({"format": engine}, EngineSettings, "--serve")
    release = publish_random(folder, LIST_SIZE, candidates, settings)
    with LocalTriton(folder / "stack", ports=Ports(http=0, grpc=0, metrics=0)) as triton:
        triton.load(release)
        return [
            measure_grpc_floor(triton, release.name, [random_request(m, LIST_SIZE)], calls)
            for m in candidates
        ]


def _engine_table(rows: list[Row], threads: int, clock: Clock, rate: float) -> Table:
    table = Table(
        box=SIMPLE,
        padding=(0, 1, 0, 0),
        title=f"n = {LIST_SIZE}, 4 + 4 layers, D = 64, {threads} thread(s): median ms ({clock})",
        caption="enc, dec: as served; plain: dec without the inputs of sampling and rules; one: "
        "that, one item a pass. /eager: of eager; OMTP x: without it / with it, both with the "
        "encoder; rules x: what their unused inputs cost, dec / plain; limit: share of it reached, "
        f"products at {rate / 1e9:.0f} GFLOP/s / (enc + dec)",
    )
    for name in Row.__struct_fields__:
        table.add_column(_SHORT.get(name, name), justify="right", no_wrap=True)
    for row in rows:
        values = msgspec.to_builtins(row).values()
        table.add_row(*(f"{v:.2f}" if isinstance(v, float) else str(v) for v in values))
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
