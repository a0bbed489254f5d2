"""Tables of a case, from stored results alone: Markdown for people, CSV for everything else."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from statistics import mean

import msgspec

from contracts.reading import Strict
from training.comparison.cases import Case
from training.comparison.pairing import Drawn, draw
from training.comparison.store import Row, Store
from training.evaluation.bootstrap import Interval

#: Metrics beside the primary one, where they are known.
BESIDE = ("true watch_time", "ndcg@10", "ndcg_shown@10", "auc", "gauc")


class Line(Strict, kw_only=True, frozen=True):
    """A method of a table; what is not known is None.

    Attributes:
        value: the primary metric, over users and seeds.
        over_reference: its difference to the reference method, and p: two-sided, paired.
        over_given: its difference to the given order.
        control: that of the runs with shuffled feedback.
        beside: other metrics, by name.
        alarms: of its runs.
        epoch: the chosen one, mean over seeds.
        codes: states of the code that its rows, and those of its control, are of.
    """

    method: str
    seeds: int
    trials: int
    value: Interval
    over_reference: Interval | None = None
    p: float | None = None
    over_given: Interval | None = None
    control: Interval | None = None
    beside: dict[str, float] = msgspec.field(default_factory=dict)
    cpu_seconds: float = 0.0
    parameters: int = 0
    latency_ms: float | None = None
    latency_ratio: float | None = None
    epoch: float = 0.0
    alarms: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()


def latest(rows: Sequence[Row], control: str = "none") -> list[Row]:
    """Final rows of one method and the newest code, a row for each seed.

    Of several settings those that the most were tried for: an ablation's recipe is untuned.
    """
    finals = [row for row in rows if row.role == "final" and row.control == control]
    if not finals:
        return []
    newest = finals[-1]
    alike = [row for row in finals if (row.data, row.code) == (newest.data, newest.code)]
    most = max(row.trials for row in alike)
    last = [row for row in alike if row.trials == most][-1]
    same = {
        row.seed: row
        for row in finals
        if (row.settings, row.data, row.code) == (last.settings, last.data, last.code)
    }
    return [same[seed] for seed in sorted(same)]


def lines_of(
    store: Store, rows: Sequence[Row], case: str, primary: str, methods: Sequence[str],
    reference: str,
) -> list[Line]:  # fmt: skip
    """A line for each method that has results, in the order asked for."""
    by_method = {
        name: [row for row in rows if row.case == case and row.method == name] for name in methods
    }
    drawn = {
        name: draw(store, finals, primary)
        for name, own in by_method.items()
        if (finals := latest(own)) and primary in finals[0].metrics
    }
    return [
        _line(store, name, by_method[name], primary, drawn, reference)
        for name in methods
        if name in drawn
    ]


def _line(
    store: Store, name: str, rows: Sequence[Row], primary: str, drawn: dict[str, Drawn],
    reference: str,
) -> Line:  # fmt: skip
    finals, controls = latest(rows), latest(rows, "shuffled")
    over, p = None, None
    if reference in drawn and name != reference:
        over, p = drawn[name].minus(drawn[reference])
    given = drawn.get("given")
    over_given = drawn[name].minus(given)[0] if given and name != "given" else None
    control = draw(store, controls, primary).minus(given)[0] if given and controls else None
    return Line(
        method=name,
        seeds=len(finals),
        trials=max(1, len({row.trial for row in rows if row.role == "trial"})),
        value=drawn[name].interval(),
        over_reference=over,
        p=p,
        over_given=over_given,
        control=control,
        beside={
            metric: mean(row.metrics[metric].value for row in finals)
            for metric in BESIDE
            if metric != primary and all(metric in row.metrics for row in finals)
        },
        cpu_seconds=mean(row.cpu_seconds for row in finals),
        parameters=round(mean(row.parameters for row in finals)),
        latency_ms=_mean([row.latency_ms for row in finals]),
        latency_ratio=_mean([row.latency_ratio for row in finals]),
        epoch=mean(row.epoch for row in finals),
        alarms=tuple(sorted({row.alarm for row in finals if row.alarm})),
        codes=tuple(sorted({row.code for row in [*finals, *controls]})),
    )


def markdown(
    case: Case, lines: Sequence[Line], reference: str, codes: Mapping[str, str] | None = None
) -> str:
    """The case's table, with a heading and what must be said of it.

    Args:
        codes: the state of the code that each method's results are of now; rows of another one
            are said to be. None asks nothing.
    """
    beside = [name for name in BESIDE if any(name in line.beside for line in lines)]
    head = [
        "method", f"{case.primary} (95 %)", f"minus {reference}", "p", "minus given order",
        "the same, shuffled feedback", *beside, "seeds", "trials", "epoch", "train CPU s",
        "parameters", "ms a request", "x GReF",
    ]  # fmt: skip
    text = [f"## {case.name}", "", f"{case.title}.", "", _row(head), _row(["---"] * len(head))]
    for line in lines:
        marks = " (1)" * bool(line.alarms) + " (2)" * is_stale(line, codes)
        name = f"**{line.method}**" if line.method == reference else line.method
        text.append(
            _row([
                name + marks,
                f"{line.value.estimate:.4f} ({line.value.low:.4f} to {line.value.high:.4f})",
                _signed(line.over_reference),
                "" if line.p is None else f"{line.p:.3f}",
                _signed(line.over_given),
                _signed(line.control),
                *(_number(line.beside.get(name), ".4f") for name in beside),
                str(line.seeds),
                str(line.trials),
                f"{line.epoch:.1f}",
                f"{line.cpu_seconds:,.1f}",
                f"{line.parameters:,}",
                _number(line.latency_ms, ".2f"),
                _number(line.latency_ratio, ".2f"),
            ])
        )  # fmt: skip
    stopped = [f"{line.method}: {line.alarms[0]}" for line in lines if line.alarms]
    if stopped:
        text += ["", "(1) An alarm ended at least one training. " + "; ".join(stopped) + "."]
    if any(is_stale(line, codes) for line in lines):
        text += ["", "(2) Of an earlier state of the code; comparison.csv says which."]
    return "\n".join(text) + "\n"


def is_stale(line: Line, codes: Mapping[str, str] | None) -> bool:
    """Whether any of its rows is of another state of the code than the one of now."""
    return codes is not None and set(line.codes) != {codes[line.method]}


def as_csv(lines: Sequence[tuple[str, str, Line]]) -> str:
    """(case, primary metric, line) as CSV, a row each."""
    out = io.StringIO()
    names = ["value", "over_reference", "over_given", "control"]
    plain = [
        "seeds",
        "trials",
        "epoch",
        "p",
        "cpu_seconds",
        "parameters",
        "latency_ms",
        "latency_ratio",
    ]
    writer = csv.writer(out, lineterminator="\n")
    spread = [f"{name}{part}" for name in names for part in ("", "_low", "_high")]
    writer.writerow(["case", "metric", "method", *spread, *plain, *BESIDE, "codes"])
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


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _signed(one: Interval | None) -> str:
    if one is None:
        return ""
    text = f"{one.estimate:+.4f} ({one.low:+.4f} to {one.high:+.4f})"
    return f"**{text}**" if one.excludes_zero else text


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None
