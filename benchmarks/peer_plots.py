"""Plots of benchmarks/peers.py and benchmarks/growth.py."""

from __future__ import annotations

from pathlib import Path

from benchmarks.peer_networks import GREF, PAPER_MS
from benchmarks.peer_report import Report, Timing


def plot_peers(report: Report, engine: str, file: Path) -> None:
    """Write a PNG: each network's time over GReF's by batch size, with the paper's beside it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    names = [name for name in PAPER_MS if any(row.network == name for row in report.rows)]
    batches = sorted({row.batch for row in report.rows})
    width = 0.8 / (len(batches) + 1)
    for index, batch in enumerate(batches):
        rows = {
            row.network: row for row in report.rows if (row.batch, row.engine) == (batch, engine)
        }
        spreads = [rows[name].to_gref for name in names]
        axes.bar(
            [place + index * width for place in range(len(names))],
            [one.median for one in spreads],
            width,
            yerr=(
                [one.median - one.low for one in spreads],
                [one.high - one.median for one in spreads],
            ),
            capsize=2,
            label=f"batch {batch}",
        )
    axes.bar(
        [place + len(batches) * width for place in range(len(names))],
        [PAPER_MS[name] / PAPER_MS[GREF] for name in names],
        width,
        color="lightgrey",
        edgecolor="grey",
        label="paper, Table 2 (Tesla T4)",
    )
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_yscale("log")
    middle = [place + len(batches) * width / 2 for place in range(len(names))]
    axes.set_xticks(middle, [name.replace(" ", "\n", 1) for name in names])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylabel("time / GReF's (median, quartiles)")
    machine = report.machine
    axes.set_title(f"{engine}, {machine.processor}, {machine.threads} thread(s)", fontsize=10)
    axes.legend()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)


def plot_growth(with_m: list[Timing], with_n: list[Timing], title: str, file: Path) -> None:
    """Write a PNG: times along m and along n, the arithmetic limit dotted in the same colour."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, rows, along, label in zip(
        figure.subplots(1, 2),
        (with_m, with_n),
        ("candidates", "list_size"),
        ("candidates m", "list size n"),
    ):
        for network in dict.fromkeys(row.network for row in rows):
            own = sorted(
                (row for row in rows if row.network == network), key=lambda r: getattr(r, along)
            )
            sizes = [getattr(row, along) for row in own]
            line = axes.plot(sizes, [row.ms.median for row in own], marker="o", label=network)
            colour = line[0].get_color()
            axes.fill_between(
                sizes, [r.ms.low for r in own], [r.ms.high for r in own], color=colour, alpha=0.15
            )
            axes.plot(sizes, [row.limit_ms for row in own], ":", color=colour)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(sorted({getattr(row, along) for row in rows}))
        axes.minorticks_off()
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
        axes.set_xlabel(label)
        axes.set_ylabel("ms a call (dotted: arithmetic limit)")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9)
    figure.suptitle(title, fontsize=10)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
