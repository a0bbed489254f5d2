"""Markdown of tables and figures, the same on every page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import mean

from training.evaluation.bootstrap import Interval


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return [_row(cells) for cells in (head, ["---"] * len(head), *rows)]


def spread(one: Interval) -> str:
    """A value and its interval."""
    return f"{one.estimate:.4f} ({one.low:.4f} to {one.high:.4f})"


def signed(one: Interval | None, bold: bool = False) -> str:
    """A difference and its interval; "" where there is none."""
    if one is None:
        return ""
    text = f"{one.estimate:+.4f} ({one.low:+.4f} to {one.high:+.4f})"
    return f"**{text}**" if bold else text


def number(value: float | None, form: str = ".3g") -> str:
    """A number; "" where there is none."""
    return "" if value is None else format(value, form)


def average(values: Iterable[float | None], form: str = ".3g") -> str:
    """The mean of those that are known."""
    known = [value for value in values if value is not None]
    return number(mean(known) if known else None, form)


def p_value(p: float | None) -> str:
    """p to three digits; what is smaller says so."""
    return "" if p is None else "<.001" if p < 0.0005 else f"{p:.3f}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
