"""An ablation's page: the question, two sentences that the results give, tables, and plots."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np

from contracts.reading import stable_hash
from training.ablations.ablation import Ablation, Arm, thinned
from training.ablations.entries import ABLATIONS
from training.comparison.cases import CASES, Case
from training.comparison.jobs import plain
from training.comparison.pairing import Drawn, draw
from training.comparison.store import Row, Store
from training.comparison.tables import latest
from training.evaluation.bootstrap import Interval


@dataclass(frozen=True)
class Found:
    """What an arm gave on a case; ``over`` is paired with the reference's, over one and the same
    test lists, or None."""

    arm: Arm
    rows: list[Row]
    drawn: Drawn
    over: Interval | None
    exposed: Row | None


def write_pages(results: Path, out: Path, cases: Mapping[str, Case] = CASES) -> list[Path]:
    """Write a page for every ablation that has results; the files written."""
    store = Store(results)
    rows = list(store.rows().values())
    files = []
    known = with_shares(cases, {row.case for row in rows})
    for ablation in ABLATIONS.values():
        found = {}
        for name, case in known.items():
            arms = found_of(store, rows, ablation, case) if ablation.fits(case) else []
            if len(arms) > 1:
                found[name] = arms
        if not found:
            continue
        file = out / "ablations" / f"{ablation.name}.md"
        file.parent.mkdir(parents=True, exist_ok=True)
        text = [f"# {ablation.name}: {ablation.question}\n"]
        for name, arms in found.items():
            text.append(page(ablation, known[name], arms))
            if ablation.curve:
                plot = file.parent / f"{ablation.name}-{name}.png"
                plot_curve(ablation, known[name], arms, plot)
                text.append(f"![latency against quality]({plot.name})\n")
                files.append(plot)
        file.write_text("\n".join(text), encoding="utf-8")
        files.append(file)
    return files


def with_shares(cases: Mapping[str, Case], trained: Iterable[str]) -> dict[str, Case]:
    """The cases, each followed by the shares of its train lists that something was trained on."""
    shares = {
        float(share) for name in trained for share in re.findall(r"\+share=([\d.]+)(?:\+|$)", name)
    }
    found = {}
    for name, case in cases.items():
        found[name] = case
        for share in sorted(shares, reverse=True):
            found[f"{name}+share={share}"] = thinned(case, share)
    return found


def found_of(store: Store, rows: Sequence[Row], ablation: Ablation, base: Case) -> list[Found]:
    """The arms of a case that have results."""
    metric = ablation.metric or base.primary
    drawn: dict[str, tuple[list[Row], Drawn]] = {}
    for arm in ablation.arms:
        case = arm.case(base)
        system = arm.system(case)
        # Not what was tuned under the same name, nor what the recipe was before.
        settings = stable_hash(plain(system.trials(case, 1)[0]))
        own = latest(
            [
                row
                for row in rows
                if (row.case, row.method) == (case.name, system.name)
                and stable_hash(row.settings) == settings
            ]
        )
        if own and metric in own[0].metrics:
            drawn[arm.label] = own, draw(store, own, metric)
    reference = drawn.get(ablation.reference)
    found = []
    for arm in ablation.arms:
        if arm.label not in drawn:
            continue
        own, draws = drawn[arm.label]
        over = None
        other = reference if arm.label != ablation.reference else None
        if other and _paired(store, own[0], other[0][0]):
            over = draws.minus(other[1])[0]
        name = arm.case(base).name
        shown = latest([row for row in rows if row.case == name and row.method == "exposed"])
        found.append(Found(arm, own, draws, over, shown[0] if shown else None))
    return found


def _paired(store: Store, one: Row, other: Row) -> bool:
    """Whether the test lists are of the same users in the same order."""
    first, second = store.case_lists(one)["users"], store.case_lists(other)["users"]
    same = np.array_equal(first, second)
    # Worlds that differ draw other requests for the same users.
    return same and _world(one) == _world(other)


def _world(row: Row) -> list[str]:
    parts = row.case.split("+")[1:]
    return sorted(one for one in parts if not one.startswith(("utility=", "share=")))


def answer(ablation: Ablation, case: Case, found: Sequence[Found]) -> str:
    """Two sentences that follow from the figures and say no more than they do."""
    metric = ablation.metric or case.primary
    best = max(found, key=lambda one: one.drawn.estimate)
    seeds = min(len(one.rows) for one in found)
    first = (
        f"On {case.name} the highest {metric} is that of '{best.arm.label}' "
        f"({best.drawn.estimate:.4f}, {seeds} seed{'s' if seeds > 1 else ''} or more)."
    )
    compared = [one for one in found if one.over is not None]
    better = [f"'{one.arm.label}'" for one in compared if one.over and one.over.low > 0]
    worse = [f"'{one.arm.label}'" for one in compared if one.over and one.over.high < 0]
    if not compared:
        return f"{first} No arm has the reference's test lists, so none is paired with it."
    parts = [
        f"{what} than '{ablation.reference}' by more than the interval: {', '.join(names)}"
        for what, names in (("better", better), ("worse", worse))
        if names
    ]
    second = "; ".join(parts) or f"No arm differs from '{ablation.reference}' beyond the interval"
    return f"{first} {second[0].upper()}{second[1:]}."


def page(ablation: Ablation, case: Case, found: Sequence[Found]) -> str:
    """The part of a page that is of one case."""
    metric = ablation.metric or case.primary
    exposed = any(one.exposed for one in found)
    head = ["arm", f"{metric} (95 %)", f"minus {ablation.reference}", "minus given order, mean",
            *(["exposure order minus given"] if exposed else []), *ablation.scalars,
            "seeds", "ms a request", "train CPU s", "alarm"]  # fmt: skip
    lines = [f"## {case.name}", "", answer(ablation, case, found), "", _row(head),
             _row(["---"] * len(head))]  # fmt: skip
    for one in found:
        value = one.drawn.interval()
        lines.append(_row([
            one.arm.label,
            f"{value.estimate:.4f} ({value.low:.4f} to {value.high:.4f})",
            "" if one.over is None
            else f"{one.over.estimate:+.4f} ({one.over.low:+.4f} to {one.over.high:+.4f})",
            _gain(one.rows, metric),
            *([_gain([one.exposed] if one.exposed else [], metric)] if exposed else []),
            *(_mean([row.scalars.get(name) for row in one.rows]) for name in ablation.scalars),
            str(len(one.rows)),
            _mean([row.latency_ms for row in one.rows]),
            _mean([row.cpu_seconds for row in one.rows]),
            f"{sum(bool(row.alarm) for row in one.rows)} of {len(one.rows)}",
        ]))  # fmt: skip
    return "\n".join(lines) + "\n"


def plot_curve(ablation: Ablation, case: Case, found: Sequence[Found], file: Path) -> None:
    """Metric over the given order against latency, a line for each value of ``curve``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metric = ablation.metric or case.primary
    groups: dict[object, list[Found]] = {}
    for one in found:
        default = getattr(case.world, ablation.curve)
        groups.setdefault(one.arm.world.get(ablation.curve, default), []).append(one)
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for value, arms in groups.items():
        times = [mean(row.latency_ms or 0.0 for row in one.rows) for one in arms]
        gains = [mean(_over_given(one.rows, metric)) for one in arms]
        axes.plot(times, gains, "o-", label=f"{ablation.curve} {value}")
        for one, x, y in zip(arms, times, gains):
            axes.annotate(one.arm.label.split(",")[0], (x, y), fontsize=8)
    axes.set_xlabel("CPU ms a request (eager, one thread)")
    axes.set_ylabel(f"{metric} minus the given order's")
    axes.legend()
    figure.savefig(file, dpi=110, metadata={"Software": None})


def _over_given(rows: Sequence[Row], metric: str) -> list[float]:
    gains = [row.metrics[metric].over_given for row in rows if metric in row.metrics]
    return [gain[0] for gain in gains if gain is not None]


def _gain(rows: Sequence[Row], metric: str) -> str:
    gains = _over_given(rows, metric)
    return f"{mean(gains):+.4f}" if gains else ""


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{mean(known):.3g}" if known else ""


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
