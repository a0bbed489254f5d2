"""Tables of a case: Markdown for people, CSV for everything else."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from training.comparison.cases import Case
from training.comparison.lines import BESIDE, Line
from training.comparison.markdown import number, p_value, signed, spread, table
from training.evaluation.bootstrap import Interval


def markdown(case: Case, lines: Sequence[Line], reference: str) -> str:
    """The case's table, with a heading and what must be said of it."""
    beside = [name for name in BESIDE if any(name in line.beside for line in lines)]
    head = [
        "method", f"{case.primary} (95 %)", f"minus {reference}", "p", "p, Holm",
        "minus given order", "the same, shuffled feedback", *beside,
        "seeds", "trials", "epoch", "saw pairs", "train CPU s", "parameters",
        "ms a request", "x GReF",
    ]  # fmt: skip
    rows = [
        [
            _name(line, reference),
            spread(line.value),
            signed(line.over_reference, bold=line.differs),
            p_value(line.p),
            p_value(line.p_holm),
            _over_given(line.over_given, line.seeds),
            _over_given(line.control, line.control_seeds) + " (3)" * bool(line.control_alarms),
            *(number(line.beside.get(name), ".4f") for name in beside),
            str(line.seeds),
            str(line.trials),
            f"{line.epoch:.1f}",
            "" if line.saw_pairs is None else f"{line.saw_pairs} of {line.seeds}",
            f"{line.cpu_seconds:,.1f}",
            f"{line.parameters:,}",
            number(line.latency_ms, ".2f"),
            number(line.latency_ratio, ".2f"),
        ]
        for line in lines
    ]  # fmt: skip
    of = f" {lines[0].lists:,} test lists of {lines[0].users:,} users." if lines[0].lists else ""
    text = [f"## {case.name}", "", f"{case.title}.{of}", "", *table(head, rows)]
    for mark, said, of in (
        ("(1)", "An alarm ended at least one training", "alarms"),
        ("(3)", "An alarm ended the control", "control_alarms"),
    ):
        stopped = [f"{one.method}: {getattr(one, of)[0]}" for one in lines if getattr(one, of)]
        if stopped:
            text += ["", f"{mark} {said}. " + "; ".join(stopped) + "."]
    if any(line.stale for line in lines):
        text += ["", "(2) Of an earlier state of the code or of the slates (comparison.csv)."]
    return "\n".join(text) + "\n"


def _name(line: Line, reference: str) -> str:
    name = f"**{line.method}**" if line.method == reference else line.method
    return name + " (1)" * bool(line.alarms) + " (2)" * line.stale


def _over_given(one: Interval | None, seeds: int) -> str:
    """Bold where the interval excludes 0 and is one over trainings, too."""
    return signed(one, bold=one is not None and one.excludes_zero and seeds > 1)


def as_csv(lines: Sequence[tuple[str, str, Line]]) -> str:
    """(case, primary metric, line) as CSV, a row each."""
    out = io.StringIO()
    names = ["value", "over_reference", "over_given", "control"]
    plain = ["seeds", "trials", "epoch", "saw_pairs", "p", "p_holm", "control_seeds",
             "cpu_seconds", "parameters", "latency_ms", "latency_ratio"]  # fmt: skip
    writer = csv.writer(out, lineterminator="\n")
    thrice = [f"{name}{part}" for name in names for part in ("", "_low", "_high")]
    writer.writerow(["case", "metric", "method", *thrice, *plain, *BESIDE, "codes"])
    for case, primary, line in lines:
        intervals = [getattr(line, name) for name in names]
        writer.writerow([
            case,
            primary,
            line.method,
            *(_cell(getattr(one, part, None)) for one in intervals
              for part in ("estimate", "low", "high")),
            *(_cell(getattr(line, name)) for name in plain),
            *(_cell(line.beside.get(name)) for name in BESIDE),
            " ".join(line.codes),
        ])  # fmt: skip
    return out.getvalue()


def _cell(value: float | None) -> str:
    return number(value, ".6g")
