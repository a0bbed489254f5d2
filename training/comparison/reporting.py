"""Writes docs/evaluation from stored results alone: tables, one CSV, and plots."""

from __future__ import annotations

from pathlib import Path

from training.comparison.cases import CASES
from training.comparison.code_state import code_state
from training.comparison.gref import GREF
from training.comparison.lines import Line, lines_of
from training.comparison.plots import plot_case
from training.comparison.store import Store
from training.comparison.systems import systems
from training.comparison.tables import as_csv, markdown
from training.comparison.verdicts import verdicts

HEAD = """# Systems side by side

Made by `make report` from `results/`; do not edit. What the columns mean, what the settings were
chosen by, and the command that gives any row again: [README.md](README.md). Simulated cases: exact
expected feedback of the test lists, which no training, epoch or trial saw. *trials* says among how
many settings a row's were chosen, 1 that they are the defaults; GReF's defaults were developed on
requests of these worlds and of KuaiRand's other days ([decisions.md](decisions.md)). *p, Holm* is
corrected for the number of rivals, and decides what is bold and every verdict. First, for each
case, what is asked of the recipe; then every method's row.

"""


def report(results: Path, out: Path) -> list[Path]:
    """Write comparison.md, comparison.csv and a plot for each case; the files written."""
    store = Store(results)
    peers = {one.name for one in systems().values() if one.learns and not one.is_gref}
    bounds = {one.name for one in systems().values() if not one.learns}
    codes = {name: code_state(one.code) for name, one in systems().items()}
    rows = list(store.rows().values())
    text: list[str] = []
    table: list[tuple[str, str, Line]] = []
    judged: list[tuple[str, list[Line]]] = []
    files: list[Path] = []
    for name, case in CASES.items():
        if not any(row.case == name for row in rows):
            continue
        now = {method: (case.identity(), code) for method, code in codes.items()}
        lines = lines_of(store, rows, name, case.primary, list(systems()), GREF, now, peers)
        if not lines:
            continue
        table += [(name, case.primary, line) for line in lines]
        judged.append((name, lines))
        plot = out / "plots" / f"{name}.png"
        plot_case(case, lines, GREF, plot, bounds)
        text.append(markdown(case, lines, GREF) + f"\n![{name}](plots/{name}.png)\n\n")
        files.append(plot)
    asked = verdicts(judged, GREF, peers) if judged else "No results are stored yet.\n"
    text = [HEAD, asked, "\n", *text]
    out.mkdir(parents=True, exist_ok=True)
    for file, content in (("comparison.md", "".join(text)), ("comparison.csv", as_csv(table))):
        (out / file).write_text(content, encoding="utf-8")
        files.append(out / file)
    return files
