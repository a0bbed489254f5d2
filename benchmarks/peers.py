"""GReF and its peers in one run: what a list costs, at equal width and depth.

Every network takes the same five tensors and gives a list without repetition. Rounds alternate
between networks and formats, so ratios hold on a busy machine, too; milliseconds are this
machine's. docs/peers.md says what is equal and what is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Optional, get_args

import torch
import typer
from rich.console import Console
from rich.progress import Progress

from benchmarks.arithmetic import ShapedLimit, matrix_rate
from benchmarks.decode import bench_spec, random_inputs
from benchmarks.peer_networks import (
    GREF,
    PAPER_MS,
    SERVED,
    Engine,
    check_equal,
    compile_network,
    make_network,
    served_engines,
)
from benchmarks.peer_plots import plot_peers
from benchmarks.peer_report import (
    Report,
    Timing,
    aims_table,
    as_markdown,
    peer_table,
    this_machine,
)
from benchmarks.peer_timing import bound, clock_of, make_folders, timing
from benchmarks.rounds import Call, Clock, interleaved
from contracts.features import FeatureSpec
from contracts.reading import write_json
from training.settings import ModelSettings

EPILOG = """Examples:

python benchmarks/peers.py

python benchmarks/peers.py --batch 1 --rounds 1000 --out peers.json --plot peers.png

python benchmarks/peers.py --engine torchscript --engine aotinductor --batch 1   # minutes of g++

python benchmarks/peers.py --device cuda --engine torchscript --engine graph
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console, errors = Console(), Console(stderr=True)
console.width = max(console.width, 104)  # a pipe has 80, which is too few for the tables


@app.command(epilog=EPILOG)
def main(
    batch: Annotated[Optional[list[int]], typer.Option(min=1, help="Requests of a call.")] = None,
    candidates: Annotated[int, typer.Option(min=1, max=512, help="m.")] = 30,
    list_size: Annotated[int, typer.Option(min=1, max=64, help="n.")] = 10,
    width: Annotated[int, typer.Option(min=4, help="D; four attention heads.")] = 64,
    layers: Annotated[int, typer.Option(min=1, help="Of encoders and of decoders.")] = 4,
    heads: Annotated[int, typer.Option(min=1, max=16, help="H of GReF.")] = 4,
    engine: Annotated[
        Optional[list[str]],
        typer.Option(help="torchscript, aotinductor, or graph (CUDA); beside eager."),
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=3, help="At batch 1; an eighth at 64, a fortieth at 1024.")
    ] = 200,
    threads: Annotated[int, typer.Option(min=1, help="torch threads.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    clock: Annotated[
        str, typer.Option(help="wall, or cpu: this process's time, for a busy machine.")
    ] = "wall",
    out: Annotated[Optional[Path], typer.Option(help="JSON file of all figures.")] = None,
    markdown: Annotated[Optional[Path], typer.Option(help="The tables for a document.")] = None,
    plot: Annotated[Optional[Path], typer.Option(help="PNG of the first format's ratios.")] = None,
) -> None:
    """Print times, ratios to GReF beside the paper's Table 2, and the share of the limit.

    Exit code 0: done; 2: an option that cannot be had here.
    """
    try:
        chosen = _device(device)
        formats = _formats(engine or ["torchscript"])
        ticking = clock_of(clock, chosen, threads)
        settings = ModelSettings(
            width=width, encoder_layers=layers, decoder_layers=layers, heads=heads
        )
        torch.set_num_threads(threads)
        batches = list(dict.fromkeys(batch or [1, 64, 1024]))
        make_folders(out, markdown, plot)
        counts = {size: rounds_of(rounds, size) for size in batches}
        spec = bench_spec(list_size)
        rate = matrix_rate(device=chosen, clock=ticking)
        limit = ShapedLimit(chosen, ticking)
        rows = [
            row
            for size in batches
            for row in measure(
                spec,
                settings,
                size,
                candidates,
                formats,
                counts[size],
                chosen,
                ticking,
                rate,
                limit,
            )
        ]
    except (ValueError, OSError) as error:
        errors.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    report = Report(
        machine=this_machine(chosen, threads, clock, rate),
        width=width,
        layers=(layers, layers),
        heads=heads,
        rounds={str(size): count for size, count in counts.items()},
        rows=rows,
    )
    tables = [peer_table(report, size, one) for size in batches for one in formats]
    tables.append(aims_table(report))
    for table in tables:
        console.print(table)
    machine = report.machine
    console.print(
        f"{machine.processor}, {threads} thread(s), torch {machine.torch}, "
        f"{rate / 1e9:.0f} Gflop/s in large products",
        highlight=False,
    )
    if out is not None:
        write_json(out, report)
    if markdown is not None:
        markdown.write_text(as_markdown(tables), encoding="utf-8")
    if plot is not None:
        plot_peers(report, formats[0], plot)


def measure(
    spec: FeatureSpec,
    settings: ModelSettings,
    batch: int,
    candidates: int,
    formats: list[Engine],
    rounds: int,
    device: str,
    clock: Clock,
    rate: float,
    limit: ShapedLimit,
) -> Iterator[Timing]:
    """All networks at one batch size, eager and in ``formats``.

    Raises:
        ValueError: a format that cannot be made here, or a network whose lists differ in it.
    """
    torch.manual_seed(0)
    inputs = tuple(tensor.to(device) for tensor in random_inputs(spec, batch, candidates))
    engines: list[Engine] = ["eager", *formats]
    calls: dict[str, Call] = {}
    with Progress(transient=True, console=console) as progress:
        task = progress.add_task(f"batch {batch}: building", total=len(PAPER_MS) * len(formats))
        for name in PAPER_MS:
            network = make_network(name, spec, settings)
            network.eager.to(device)
            network.engine.to(device)
            for one in engines:
                run = compile_network(network, inputs, one)
                if one != "eager":
                    check_equal(network, run, inputs, f"{name} as {one}")
                    progress.advance(task)
                calls[_key(name, one)] = bound(run, inputs)
        for one in engines:
            if one in ("eager", "torchscript"):
                run = served_engines(spec, settings, one, batch, candidates, device)
                calls[_key(SERVED, one)] = bound(run, inputs)
    with console.status(f"batch {batch}: {rounds} rounds of {len(calls)} calls"):
        times = interleaved(calls, rounds, device, clock)
    for one in engines:
        for name in (*PAPER_MS, SERVED):
            if _key(name, one) not in times:
                continue
            own, of_gref = times[_key(name, one)], times[_key(GREF, one)]
            size = batch, candidates
            yield timing(name, one, spec, settings, size, own, of_gref, rate, limit)


def rounds_of(rounds: int, batch: int) -> int:
    """Fewer rounds of larger batches, whose calls take longer and vary less."""
    return max(3, rounds // (1 if batch < 16 else 8 if batch < 256 else 40))


def _key(name: str, engine: str) -> str:
    return f"{name}, {engine}"


def _device(given: str) -> str:
    if given not in ("auto", "cpu", "cuda"):
        raise ValueError(f"--device {given}; allowed: auto, cpu, cuda")
    present = torch.cuda.is_available()
    if given == "cuda" and not present:
        raise ValueError("--device cuda, and torch sees no GPU; allowed here: cpu")
    return "cuda" if present and given != "cpu" else "cpu"


def _formats(given: list[str]) -> list[Engine]:
    allowed = [one for one in get_args(Engine) if one != "eager"]
    for one in given:
        if one not in allowed:
            raise ValueError(f"--engine {one}; allowed: {', '.join(allowed)}")
    return given  # type: ignore[return-value]


if __name__ == "__main__":
    app()
