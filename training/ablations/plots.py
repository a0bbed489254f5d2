"""Plots of an ablation's page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from training.ablations.ablation import Ablation
from training.ablations.found import Found, over_given
from training.ablations.page import words
from training.comparison.cases import Case
from training.comparison.store import Row


def plot(ablation: Ablation, case: Case, found: Sequence[Found], file: Path) -> str:
    """The plot that an ablation asks for; what it shows, in words."""
    if ablation.curve:
        plot_curve(ablation, case, found, file)
        return "latency against quality"
    if any(one.over for one in found):
        plot_differences(ablation, case, found, file)
        return f"the arms minus '{ablation.reference}'"
    plot_gains(ablation, case, found, file)
    return "the arms over the given order, each seed with its interval"


def plot_differences(ablation: Ablation, case: Case, found: Sequence[Found], file: Path) -> None:
    """Each arm minus the reference, with the table's interval."""
    figure = Figure(figsize=(8, 1.2 + 0.35 * len(found)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for place, one in enumerate(found):
        if one.over:
            axes.plot([one.over.low, one.over.high], [place, place], color="tab:blue", linewidth=1)
            axes.plot([one.over.estimate], [place], "o", color="tab:blue", markersize=4)
        elif ablation.opposite(one.arm) is None:
            axes.plot([0.0], [place], "D", color="tab:red", markersize=5)
    _finish(axes, found, case)
    metric = ablation.metric or case.primary
    axes.set_xlabel(f"{metric} minus '{ablation.reference}' (red), 95 %")
    figure.savefig(file, dpi=100, metadata={"Software": None})


def plot_gains(ablation: Ablation, case: Case, found: Sequence[Found], file: Path) -> None:
    """Metric over the given order of the same lists, where the arms' lists differ: a point for
    each seed, its interval over users."""
    metric = ablation.metric or case.primary
    figure = Figure(figsize=(8, 1.2 + 0.35 * len(found)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for place, one in enumerate(found):
        gains = [row.metrics[metric].over_given for row in one.rows if metric in row.metrics]
        known = [gain for gain in gains if gain is not None]
        for number, (value, low, high) in enumerate(known):
            y = place + 0.15 * (number - (len(known) - 1) / 2)
            axes.plot([low, high], [y, y], color="tab:blue", linewidth=1)
            axes.plot([value], [y], "o", color="tab:blue", markersize=4)
    _finish(axes, found, case)
    axes.set_xlabel(f"{metric} minus the given order's, 95 %")
    figure.savefig(file, dpi=100, metadata={"Software": None})


def plot_curve(ablation: Ablation, case: Case, found: Sequence[Found], file: Path) -> None:
    """Metric over the given order against latency, a line for each value of ``curve``.

    Milliseconds vary with what else the machine did, ratios to a network timed by turns do not: an
    arm's time is its ratio by the median time of that network in its world.
    """
    metric = ablation.metric or case.primary
    groups: dict[object, list[Found]] = {}
    for one in found:
        default = getattr(case.world, ablation.curve)
        groups.setdefault(one.arm.world.get(ablation.curve, default), []).append(one)
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for value, arms in groups.items():
        ms = _reference_ms([row for one in arms for row in one.rows])
        times = [ms * mean(row.latency_ratio or 0.0 for row in one.rows) for one in arms]
        gains = [mean(over_given(one.rows, metric)) for one in arms]
        axes.plot(times, gains, "o-", label=f"{ablation.curve} {value}")
        for one, x, y in zip(arms, times, gains):
            axes.annotate(one.arm.label.split(",")[0], (x, y), fontsize=8)
    axes.set_xlabel("CPU ms a request (eager, one thread)")
    axes.set_ylabel(f"{metric} minus the given order's")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(file, dpi=110, metadata={"Software": None})


def _reference_ms(rows: Sequence[Row]) -> float:
    """Median milliseconds of the network that the rows' times are ratios to."""
    known = [row.latency_ms / row.latency_ratio for row in rows
             if row.latency_ms and row.latency_ratio]  # fmt: skip
    return median(known) if known else 0.0


def _finish(axes: Axes, found: Sequence[Found], case: Case) -> None:
    axes.set_title(words(case).replace("`", ""), fontsize=10)
    axes.axvline(0.0, color="gray", linewidth=1)
    axes.set_yticks(range(len(found)), [one.arm.label for one in found])
    axes.set_ylim(len(found) - 0.5, -0.5)
