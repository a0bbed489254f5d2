"""What was asked of the recipe, answered case by case from the tables' figures."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from training.comparison.tables import Line
from training.evaluation.bootstrap import Interval


def verdicts(
    cases: Sequence[tuple[str, Sequence[Line]]], reference: str, peers: Collection[str]
) -> str:
    """A Markdown table with a row for each case; empty cells where rows are missing.

    Args:
        cases: (name, lines) of the cases.
        peers: the methods that learn and are not the reference's own variants.
    """
    head = ["case", f"{reference} minus given order", "best peer", "best peer minus " + reference,
            "verdict", "ms over NAR4Rec's", "stages"]  # fmt: skip
    text = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for name, lines in cases:
        by_name = {line.method: line for line in lines}
        own = by_name.get(reference)
        if own is None:
            continue
        rivals = [line for line in lines if line.method in peers and line.over_reference]
        best = max(rivals, key=lambda line: line.value.estimate, default=None)
        cells = [
            name,
            _text(own.over_given),
            "" if best is None else best.method,
            "" if best is None else _text(best.over_reference),
            _verdict(own, rivals) + _missing(peers, rivals),
            _latency(own, by_name.get("nar4rec")),
            _stages(by_name, reference),
        ]
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join(text) + "\n"


def _verdict(own: Line, rivals: Sequence[Line]) -> str:
    """Below the given order; else ahead of all peers, level with the best, or behind some."""
    if own.over_given and own.over_given.high < 0:
        return "**below the given order**"
    found = [line.over_reference for line in rivals if line.over_reference]
    if not found:
        return "no peer yet"
    if all(one.high < 0 for one in found):
        return "ahead of every peer"
    behind = [line.method for line in rivals if line.over_reference and line.over_reference.low > 0]
    return f"**behind {', '.join(behind)}**" if behind else "level with the best"


def _missing(peers: Collection[str], rivals: Sequence[Line]) -> str:
    """The peers that have no row yet: a verdict is over the others alone."""
    absent = sorted(set(peers) - {line.method for line in rivals})
    return f"; not run: {', '.join(absent)}" if absent and rivals else ""


def _latency(own: Line, other: Line | None) -> str:
    if other is None or not own.latency_ratio or not other.latency_ratio:
        return ""
    return f"{own.latency_ratio / other.latency_ratio:.2f}"


def _stages(by_name: dict[str, Line], reference: str) -> str:
    """Table 3: what one stage alone is below both."""
    parts = [
        f"{what} {_text(by_name[f'{reference}-{what}'].over_reference)}"
        for what in ("pre", "post")
        if f"{reference}-{what}" in by_name
    ]
    return "; ".join(parts)


def _text(one: Interval | None) -> str:
    return "" if one is None else f"{one.estimate:+.4f} ({one.low:+.4f} to {one.high:+.4f})"
