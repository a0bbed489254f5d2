"""What benchmarks/peers.py and benchmarks/growth.py found: typed, as JSON and as tables."""

from __future__ import annotations

import platform
from pathlib import Path

import msgspec
import torch
from rich.table import Table

from benchmarks.peer_networks import (
    GREF,
    PAPER_MS,
    SEQ2SLATE,
    TRANSFORMER_POINTER,
    WITHOUT_OMTP,
)
from benchmarks.rounds import Spread


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where and how times were taken.

    Attributes:
        operations_per_second: the best rate of large fp32 products, by the same threads.
    """

    processor: str
    device: str
    threads: int
    clock: str
    torch: str
    operations_per_second: float


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """One network in one format at one size.

    Attributes:
        ms: of a call.
        to_gref: its time over GReF's in the same format, round by round.
        operations: floating-point operations of its matrix products.
        limit_ms: their time at the machine's best rate.
        shaped_ms: their time one by one, each at the rate of its own shape.
    """

    network: str
    engine: str
    batch: int
    candidates: int
    list_size: int
    ms: Spread
    to_gref: Spread
    operations: int
    limit_ms: float
    shaped_ms: float

    @property
    def of_limit(self) -> float:
        """The share of its time that the limit would take; 1 is as fast as can be."""
        return self.limit_ms / self.ms.median


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """``rows`` in the order in which they were taken; ``rounds`` by batch size."""

    machine: Machine
    width: int
    layers: tuple[int, int]
    heads: int
    rounds: dict[str, int]
    rows: list[Timing]


def this_machine(device: str, threads: int, clock: str, rate: float) -> Machine:
    """The machine of this process."""
    name = torch.cuda.get_device_name() if device == "cuda" else _processor()
    return Machine(
        processor=name,
        device=device,
        threads=threads,
        clock=clock,
        torch=str(torch.__version__),
        operations_per_second=rate,
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def peer_table(report: Report, batch: int, engine: str) -> Table:
    """All networks in one format at one batch size, ratios beside the paper's."""
    rows = [row for row in report.rows if row.batch == batch]
    eager = {row.network: row for row in rows if row.engine == "eager"}
    table = Table(
        title=f"{engine}, batch {batch}, m = {rows[0].candidates}, n = {rows[0].list_size}, "
        f"{report.rounds[str(batch)]} rounds",
        caption="medians (quartiles); paper: Table 2, on a Tesla T4; of limit: the time of the "
        "matrix products at the machine's best rate, and at that of their own shapes, of ms",
    )
    table.add_column("network")
    for name in ("eager ms", "ms", "/ GReF", "paper", "Mflop", "of limit"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        if row.engine != engine:
            continue
        paper = PAPER_MS.get(row.network)
        table.add_row(
            row.network,
            f"{eager[row.network].ms.median:.3g}",
            f"{row.ms.median:.3g}",
            str(row.to_gref),
            f"{paper / PAPER_MS[GREF]:.2f}" if paper else "",
            f"{row.operations / 1e6:.1f}",
            f"{100 * row.of_limit:.0f}, {100 * row.shaped_ms / row.ms.median:.0f} %",
        )
    return table


def aims_table(report: Report) -> Table:
    """What the project has set itself, where this run measured it."""
    table = Table(title="aims")
    for name in ("format", "batch", "ratio", "aim", "found", ""):
        table.add_column(name)
    found = {(row.engine, row.batch, row.network): row for row in report.rows}
    for engine, batch, name in found:
        if name != GREF or engine == "eager":
            continue
        gref, eager = found[engine, batch, GREF], found.get(("eager", batch, GREF))
        nar = found.get((engine, batch, "NAR4Rec"))
        checks: list[tuple[str, str, float, bool]] = []
        for peer, least in ((WITHOUT_OMTP, 2.2), (SEQ2SLATE, 5.2), (TRANSFORMER_POINTER, 5.2)):
            row = found.get((engine, batch, peer))
            if row:
                at = row.to_gref.median
                checks.append((f"{peer} / GReF", f"at least {least}", at, at >= least))
        if nar:
            at = 1 / nar.to_gref.median
            checks.append(("GReF / NAR4Rec", "at most 1.05", at, at <= 1.05))
        if eager and batch == 1:
            at = gref.ms.median / eager.ms.median
            checks.append(("GReF / its eager form", "at most 0.6", at, at <= 0.6))
        if batch == 64:
            checks.append(("limit / GReF", "at least 0.5", gref.of_limit, gref.of_limit >= 0.5))
        for what, aim, at, met in checks:
            mark = "met" if met else "not met"
            table.add_row(engine, str(batch), what, aim, f"{at:.2f}", mark)
    return table


def growth_table(rows: list[Timing], along: str) -> Table:
    """Times of each network along m (``candidates``) or n (``list_size``)."""
    sizes = sorted({getattr(row, along) for row in rows})
    letter = "m" if along == "candidates" else "n"
    table = Table(
        title=f"growth with {letter}: median ms, and the share of it that the limit would take"
    )
    table.add_column("network")
    for size in sizes:
        table.add_column(f"{letter} = {size}", justify="right")
    for network in dict.fromkeys(row.network for row in rows):
        cells = {getattr(row, along): row for row in rows if row.network == network}
        table.add_row(
            network,
            *(f"{cells[at].ms.median:.3g} ({100 * cells[at].of_limit:.0f} %)" for at in sizes),
        )
    return table


def as_markdown(tables: list[Table]) -> str:
    """The same tables for a document."""
    lines: list[str] = []
    for table in tables:
        columns = [[str(column.header), *map(str, column.cells)] for column in table.columns]
        header, *rows = zip(*columns)
        rule = tuple("---" for _ in header)
        lines += [f"**{table.title}**", ""]
        lines += [f"| {' | '.join(row)} |" for row in (header, rule, *rows)] + [""]
    return "\n".join(lines)
