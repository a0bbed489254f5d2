"""A plot for each case: every method over the given order, and beside it minus the reference."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.comparison.cases import Case
from training.comparison.lines import Line
from training.evaluation.bootstrap import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_REFERENCE = "tab:red"
_PEER, _BOUND, _CONTROL = "tab:blue", "grey", "silver"


def plot_case(
    case: Case,
    lines: Sequence[Line],
    reference: str,
    file: Path,
    bounds: Collection[str] = (),
) -> None:
    """Write a PNG: 95 % intervals over the given order, with controls, and minus the reference.

    Hollow marks are of an earlier state of the code or of the slates.

    Args:
        bounds: methods that learn nothing, in grey; they do not set the scale of the right side.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = sorted(
        (line for line in lines if line.over_given is not None),
        key=lambda line: line.value.estimate,
    )
    figure = Figure(figsize=(11, 1.4 + 0.3 * max(3, len(shown))), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    for place, line in enumerate(shown):
        own = line.method == reference
        colour = _REFERENCE if own else _BOUND if line.method in bounds else _PEER
        _mark(left, line.control, place - 0.22, _CONTROL, "x")
        _mark(left, line.over_given, place, colour, "o", line.stale)
        if own:
            right.plot([0], [place], "D", color=colour)
        elif line.method not in bounds:
            _mark(right, line.over_reference, place, colour, "o", line.stale)
    for axes in (left, right):
        axes.axvline(0, color="black", linewidth=0.8)
        axes.grid(axis="x", alpha=0.3)
    left.set_yticks(range(len(shown)), [line.method for line in shown])
    left.set_xlabel(f"{case.primary} minus the given order's (x: trained on shuffled feedback)")
    right.set_xlabel(f"{case.primary} minus {reference}'s, paired")
    figure.suptitle(f"{case.title}; 95 %", fontsize=10)
    file.parent.mkdir(parents=True, exist_ok=True)
    # Without a date in it, the same results give the same file.
    figure.savefig(file, dpi=100, metadata={"Software": None})


def _mark(
    axes: Axes, one: Interval | None, y: float, colour: str, mark: str, hollow: bool = False
) -> None:
    if one is None:
        return
    axes.plot([one.low, one.high], [y, y], color=colour, linewidth=1.5)
    axes.plot(
        [one.estimate], [y], mark, color=colour, markerfacecolor="white" if hollow else colour
    )
