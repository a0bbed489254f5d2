"""Writes a page for each ablation, from stored results alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from contracts.reading import stable_hash
from training.ablations.ablation import Ablation, thinned
from training.ablations.entries import ABLATIONS
from training.ablations.found import Found, corrected
from training.ablations.page import page
from training.ablations.plots import plot
from training.comparison.cases import CASES, Case
from training.comparison.code_state import code_state
from training.comparison.finals import latest
from training.comparison.jobs import plain
from training.comparison.pairing import Drawn, draw
from training.comparison.store import Row, Store

MADE = """Made by `make report` from `../results/`; do not edit. How arms are compared, and what a
column says: [README.md](../README.md).
"""


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
        text = [f"# {ablation.name}: {ablation.question}\n", MADE]
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
    stale: dict[str, bool] = {}
    for arm in ablation.arms:
        case = arm.case(base)
        system = arm.system(case)
        # Not what was tuned under the same name; what the recipe was before only where that is all.
        settings = stable_hash(plain(system.trials(case, 1)[0]))
        named = [row for row in rows if (row.case, row.method) == (case.name, system.name)]
        now = case.identity(), code_state(system.code)
        own = latest([row for row in named if stable_hash(row.settings) == settings], now=now)
        own = own or latest([row for row in named if row.trials == 1], now=now)
        if own and metric in own[0].metrics:
            drawn[arm.label] = own, draw(store, own, metric)
            ours = stable_hash(own[0].settings) == settings
            stale[arm.label] = not ours or {(row.data, row.code) for row in own} != {now}
    found = []
    for arm in ablation.arms:
        if arm.label not in drawn:
            continue
        own, draws = drawn[arm.label]
        opposite = ablation.opposite(arm)
        other = drawn.get(opposite.label) if opposite else None
        over, p = None, 1.0
        # Arms that the case's own settings make one and the same training are no comparison.
        same = other is not None and [row.key for row in own] == [row.key for row in other[0]]
        if other and not same and _paired(store, own[0], other[0][0]):
            over, p = draws.minus(other[1], alike=True)
        case = arm.case(base)
        shown = latest([row for row in rows if row.case == case.name and row.method == "exposed"])
        seeds = len(other[0]) if other else 0
        exposed = shown[0] if shown else None
        found.append(Found(arm, own, draws, over, exposed, stale[arm.label], seeds, p))
    return corrected(found)


def _paired(store: Store, one: Row, other: Row) -> bool:
    """Whether two arms differ in what they say they do: they are of one state of the code, and the
    test lists are the same, of one state of the slates and of the same users."""
    if one.code != other.code or (one.case == other.case and one.data != other.data):
        return False
    return np.array_equal(store.case_lists(one)["users"], store.case_lists(other)["users"])
