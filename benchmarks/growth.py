"""How times grow with the candidates m and with the list size n, against the arithmetic limit.

GReF and its peers in one format, by turns. More than 512 candidates is more than a release serves:
the tables of positions are made longer for it, and nothing else changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Optional

import torch
import typer
from rich.console import Console
from rich.progress import track

from benchmarks.arithmetic import ShapedLimit, matrix_rate
from benchmarks.decode import bench_spec, random_inputs
from benchmarks.peer_networks import GREF, PAPER_MS, Run, compile_network, make_network
from benchmarks.peer_plots import plot_growth
from benchmarks.peer_report import Report, Timing, as_markdown, growth_table, this_machine
from benchmarks.peer_timing import bound, clock_of, make_folders, timing
from benchmarks.rounds import Clock, interleaved
from contracts.features import MAX_CANDIDATES, MAX_LIST
from contracts.reading import write_json
from training.settings import ModelSettings

EPILOG = """Examples:

python benchmarks/growth.py

python benchmarks/growth.py --batch 64 --candidates 30 --candidates 300 --out growth.json --plot growth.png
"""  # noqa: E501

#: n at which m grows, and m at which n grows.
LIST_SIZE, CANDIDATES = 10, 100

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console, errors = Console(), Console(stderr=True)
console.width = max(console.width, 104)


@app.command(epilog=EPILOG)
def main(
    candidates: Annotated[
        Optional[list[int]], typer.Option(help="m, with n = 10; up to 4096.")
    ] = None,
    list_size: Annotated[Optional[list[int]], typer.Option(help="n, with m = 100.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Requests of a call.")] = 1,
    rounds: Annotated[int, typer.Option(min=3, help="Timed rounds of each size.")] = 15,
    threads: Annotated[int, typer.Option(min=1, help="torch threads.")] = 1,
    clock: Annotated[
        str, typer.Option(help="wall, or cpu: this process's time, for a busy machine.")
    ] = "wall",
    out: Annotated[Optional[Path], typer.Option(help="JSON file of all figures.")] = None,
    markdown: Annotated[Optional[Path], typer.Option(help="The tables for a document.")] = None,
    plot: Annotated[Optional[Path], typer.Option(help="PNG of both.")] = None,
) -> None:
    """Print times along m and along n, as TorchScript on the CPU.

    Exit code 0: done; 2: a size that cannot be had.
    """
    torch.set_num_threads(threads)
    m_sizes = candidates or [30, 100, 200, 400, 700, 1000]
    n_sizes = list_size or [5, 10, 20, 40]
    try:
        ticking = clock_of(clock, "cpu", threads)
        for name, sizes, most in (("candidates", m_sizes, 4096), ("list-size", n_sizes, MAX_LIST)):
            if min(sizes) < 1 or max(sizes) > most:
                raise ValueError(f"--{name} {sizes}; allowed: 1 to {most}")
        make_folders(out, markdown, plot)
    except (ValueError, OSError) as error:
        errors.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    rate, limit = matrix_rate(clock=ticking), ShapedLimit(clock=ticking)

    def grow_to(n: int, sizes: list[int]) -> list[Timing]:
        return list(grow(n, sizes, batch, rounds, ticking, rate, limit))

    with_m = grow_to(LIST_SIZE, m_sizes)
    with_n = [row for n in n_sizes for row in grow_to(n, [CANDIDATES])]
    tables = [growth_table(with_m, "candidates"), growth_table(with_n, "list_size")]
    for table in tables:
        console.print(table)
    settings = ModelSettings()
    report = Report(
        machine=this_machine("cpu", threads, clock, rate),
        width=settings.width,
        layers=(settings.encoder_layers, settings.decoder_layers),
        heads=settings.heads,
        rounds={str(batch): rounds},
        rows=[*with_m, *with_n],
    )
    if out is not None:
        write_json(out, report)
    if markdown is not None:
        markdown.write_text(as_markdown(tables), encoding="utf-8")
    if plot is not None:
        title = f"TorchScript, batch {batch}, {report.machine.processor}, {threads} thread(s)"
        plot_growth(with_m, with_n, title, plot)


def grow(
    list_size: int,
    sizes: list[int],
    batch: int,
    rounds: int,
    clock: Clock,
    rate: float,
    limit: ShapedLimit,
) -> Iterator[Timing]:
    """All networks over ``sizes`` of candidates."""
    torch.manual_seed(0)
    spec, settings = bench_spec(list_size), ModelSettings()
    engines: dict[str, Run] = {}
    for name in PAPER_MS:
        network = make_network(name, spec, settings, max(MAX_CANDIDATES, *sizes))
        engines[name] = compile_network(network, (), "torchscript")
    for m in track(sizes, f"n = {list_size}", console=console, transient=True):
        inputs = random_inputs(spec, batch, m)
        calls = {name: bound(run, inputs) for name, run in engines.items()}
        times = interleaved(calls, rounds, clock=clock)
        for name, own in times.items():
            size = batch, m
            of_gref = times[GREF]
            yield timing(name, "torchscript", spec, settings, size, own, of_gref, rate, limit)


if __name__ == "__main__":
    app()
