"""A comparison as a table for people and as JSON for everything else."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from contracts.reading import write_json
from training.evaluation.against_baseline import Comparison
from training.evaluation.bootstrap import Interval


def comparison_table(comparison: Comparison, title: str = "Evaluation") -> Table:
    """One row for each metric and method; differences whose interval excludes 0 are bold."""
    percent = f"{100 * comparison.level:g} %"
    table = Table(
        title=title,
        caption=f"{comparison.lists:,} lists of {comparison.users:,} users; {percent} intervals "
        f"from {comparison.resamples:,} resamples of users, seed {comparison.seed}",
    )
    for name in ("metric", "order"):
        table.add_column(name, no_wrap=True)
    for name in ("value", f"minus {comparison.baseline}, {percent} interval"):
        table.add_column(name, justify="right")
    previous = None
    for result in comparison.results:
        if previous not in (None, result.metric):
            table.add_section()
        table.add_row(
            result.metric if result.metric != previous else "",
            result.method,
            f"{result.value.estimate:.4f}",
            _difference(result.difference),
        )
        previous = result.metric
    return table


def write_comparison(path: str | Path, comparison: Comparison) -> None:
    """Write a comparison as JSON; ``contracts.reading.read_json(path, Comparison)`` reads it."""
    write_json(path, comparison)


def _difference(difference: Interval | None) -> str:
    if difference is None:
        return ""
    text = f"{difference.estimate:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})"
    return f"[bold]{text}[/bold]" if difference.excludes_zero else text
