"""What was asked of the recipe, answered case by case from the tables' figures."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from training.comparison.lines import Line
from training.comparison.markdown import p_value, signed, table


def verdicts(
    cases: Sequence[tuple[str, Sequence[Line]]], reference: str, peers: Collection[str]
) -> str:
    """A Markdown table with a row for each case; empty cells where rows are missing.

    Args:
        cases: (name, lines) of the cases.
        peers: the methods that learn and are not the reference's own variants.
    """
    head = ["case", f"{reference} minus given order", "saw pairs", "trials", "best peer",
            f"best peer minus {reference}", "p, of all peers (Holm)", "verdict",
            "time / NAR4Rec's", "one stage alone, minus both"]  # fmt: skip
    rows = []
    for name, lines in cases:
        by_name = {line.method: line for line in lines}
        own = by_name.get(reference)
        if own is None:
            continue
        rivals = [line for line in lines if line.method in peers and line.over_reference]
        best = max(rivals, key=lambda line: line.value.estimate, default=None)
        rows.append([
            name,
            signed(own.over_given),
            "" if own.saw_pairs is None else f"{own.saw_pairs} of {own.seeds}",
            _trials([own, *rivals]),
            "" if best is None else best.method,
            "" if best is None else signed(best.over_reference),
            "" if best is None else p_value(best.p_holm),
            _verdict(own, rivals) + _missing(peers, rivals),
            _latency(own, by_name.get("nar4rec")),
            _stages(by_name, reference),
        ])  # fmt: skip
    return "\n".join(table(head, rows)) + "\n"


def _verdict(own: Line, rivals: Sequence[Line]) -> str:
    """Below the given order; else ahead of which peers, behind which, and of which neither."""
    if own.seeds == 1:
        return "one training: nothing is known of others"
    if own.over_given and own.over_given.high < 0:
        return "**below the given order**"
    if not rivals:
        return "no peer yet"
    sure = [line for line in rivals if line.differs]
    behind = [line.method for line in sure if line.over_reference and line.over_reference.low > 0]
    unsure = [line for line in rivals if line not in sure]
    if not behind and not unsure:
        return "ahead of every peer"
    parts = [f"**behind {', '.join(behind)}**"] if behind else []
    if len(unsure) == len(rivals):
        parts.append("no difference shown to any peer")
    elif unsure:
        parts.append(f"no difference shown to {', '.join(map(_with_difference, unsure))}")
    if len(behind) + len(unsure) < len(rivals):
        parts.append("ahead of the others")
    return "; ".join(parts)


def _with_difference(line: Line) -> str:
    """A peer with its difference: not shown is not small, where few trainings differ much."""
    over = line.over_reference
    return line.method if over is None else f"{line.method} ({over.estimate:+.3f})"


def _trials(lines: Sequence[Line]) -> str:
    """How many settings were tried for each."""
    fewest, most = min(line.trials for line in lines), max(line.trials for line in lines)
    return f"{fewest} each" if fewest == most else f"{fewest} to {most}"


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
        f"{what} {signed(by_name[f'{reference}-{what}'].over_reference)}"
        for what in ("pre", "post")
        if f"{reference}-{what}" in by_name
    ]
    return "; ".join(parts)
