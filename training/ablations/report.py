"""An ablation's page: the question, two sentences that the results give, tables, and plots."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean

import numpy as np

from contracts.reading import stable_hash
from training.ablations.ablation import Ablation, thinned
from training.ablations.entries import ABLATIONS
from training.ablations.found import Found, over_given
from training.ablations.plots import plot
from training.comparison.cases import CASES, Case
from training.comparison.jobs import plain
from training.comparison.pairing import Drawn, draw
from training.comparison.store import Row, Store
from training.comparison.tables import latest


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
            # All arms are one training, where a case's recipe has it so: nothing was asked.
            if len({(one.rows[0].case, one.rows[0].method) for one in arms}) > 1:
                found[name] = arms
        if not found:
            continue
        file, plots = out / "ablations" / f"{ablation.name}.md", []
        file.parent.mkdir(parents=True, exist_ok=True)
        text = [f"# {ablation.name}: {ablation.question}\n"]
        for name, arms in found.items():
            text.append(page(ablation, known[name], arms))
            drawn = file.parent / f"{ablation.name}-{name}.png"
            text.append(f"![{plot(ablation, known[name], arms, drawn)}]({drawn.name})\n")
            plots.append(drawn)
        file.write_text("\n".join(text), encoding="utf-8")
        files += [file, *plots]
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
    first = (
        f"On {case.name} the highest {metric} is that of '{best.arm.label}' "
        f"({best.drawn.estimate:.4f}, {_seeds(found)})."
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


def _seeds(found: Sequence[Found]) -> str:
    """How many trainings of an arm there are, and what intervals of one do not know."""
    counts = [len(one.rows) for one in found]
    if max(counts) == 1:
        return "1 seed: intervals are those of other users, not of other trainings"
    fewest = "" if min(counts) == max(counts) else f"{min(counts)} to "
    return f"{fewest}{max(counts)} seeds"


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


def _gain(rows: Sequence[Row], metric: str) -> str:
    gains = over_given(rows, metric)
    return f"{mean(gains):+.4f}" if gains else ""


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{mean(known):.3g}" if known else ""


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
