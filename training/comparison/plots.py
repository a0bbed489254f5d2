"""A plot for each case: every method's primary metric over the given order, beside its control."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from training.comparison.cases import Case
from training.comparison.tables import Line


def plot_case(case: Case, lines: Sequence[Line], reference: str, file: Path) -> None:
    """Write a PNG: differences to the given order with 95 % intervals, best first."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = sorted(
        (line for line in lines if line.over_given is not None),
        key=lambda line: line.value.estimate,
    )
    figure = Figure(figsize=(7, 1.2 + 0.32 * max(3, len(shown))), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.axvline(0, color="black", linewidth=0.8)
    for place, line in enumerate(shown):
        colour = "tab:red" if line.method == reference else "tab:blue"
        for one, mark, shade, shift in (
            (line.over_given, "o", colour, 0.0),
            (line.control, "x", "grey", -0.22),
        ):
            if one is None:
                continue
            axes.plot([one.low, one.high], [place + shift] * 2, color=shade, linewidth=1.5)
            axes.plot([one.estimate], [place + shift], mark, color=shade)
    axes.set_yticks(range(len(shown)), [line.method for line in shown])
    axes.set_xlabel(f"{case.primary} minus the given order's, 95 % (grey: shuffled feedback)")
    axes.set_title(case.title, fontsize=10)
    file.parent.mkdir(parents=True, exist_ok=True)
    # Without a date in it, the same results give the same file.
    figure.savefig(file, dpi=110, metadata={"Software": None})
