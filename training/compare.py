"""Train every system on the same slates and put them side by side.

The package training/comparison holds the parts: cases, systems, jobs, measuring, store, tables.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import torch
import typer

from contracts.reading import ContractError
from training.ablations.report import write_pages
from training.command import exit_codes, print_files, print_line
from training.comparison.cases import CASES, TABLES, chosen_cases
from training.comparison.jobs import Plan
from training.comparison.reporting import report as write_report
from training.comparison.running import Runner
from training.comparison.store import Store
from training.comparison.system import System
from training.comparison.systems import systems

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "evaluation" / "results"

EPILOG = """Examples:

python training/compare.py --case tiny --method gref --method prm --seed 1 --trials 2
--results runs/compare/try

python training/compare.py --case fatigue --method gref --seed 1

python training/compare.py --kuairand KuaiRand-Pure/data --minutes 480

python training/compare.py --report

A run that was killed goes on with the same command. The same command in a second terminal shares
the work: one process for each core.
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog=EPILOG)
def main(
    case: Annotated[
        Optional[list[str]],
        typer.Option(help=f"May be given again; all but tiny if left: {', '.join(CASES)}."),
    ] = None,
    method: Annotated[
        Optional[list[str]],
        typer.Option(help=f"May be given again; all if left: {', '.join(systems())}."),
    ] = None,
    seed: Annotated[
        Optional[list[int]], typer.Option(min=1, help="Of a training; 1, 2 and 3 if left.")
    ] = None,
    trials: Annotated[
        int, typer.Option(min=1, help="Settings tried for each method, the defaults among them.")
    ] = 4,
    control_seed: Annotated[
        Optional[list[int]],
        typer.Option(min=1, help="Also train on shuffled feedback, with this seed; 1 if left."),
    ] = None,
    controls: Annotated[
        bool, typer.Option(help="Whether to train on shuffled feedback at all.")
    ] = True,
    kuairand: Annotated[
        Optional[Path],
        typer.Option(help="Folder of KuaiRand-Pure's files; without it those cases are left out."),
    ] = None,
    minutes: Annotated[
        float, typer.Option(min=0, help="Begin no training after so many; 0: no limit.")
    ] = 0.0,
    work: Annotated[Path, typer.Option(help="Folder of slates and unfinished trainings.")] = Path(
        "runs/compare"
    ),
    results: Annotated[Path, typer.Option(help="Folder that results are added to.")] = RESULTS,
    out: Annotated[
        Optional[Path], typer.Option(help="Folder of tables and plots; that above the results.")
    ] = None,
    keep_stale: Annotated[
        bool, typer.Option("--keep-stale", help="Count results of an earlier state of the code.")
    ] = False,
    report: Annotated[
        bool,
        typer.Option("--report", help="Train nothing; make all tables, pages and plots again."),
    ] = False,
) -> None:
    """Tune each method with the same number of trials, train it with each seed, and compare.

    Trials are chosen on held-out logs, never by the test lists or a simulator's truth. Prints one
    line a training, with how much is left. Exit code 0: all done; 2: bad input; 3: some trainings
    failed, or the time was up: the same command goes on.
    """
    torch.set_num_threads(1)
    with exit_codes():
        here = out or results.parent
        if report and (case or method or seed or kuairand or keep_stale or minutes):
            raise ValueError("--report makes all of it again; leave it with --results and --out")
        if report:
            if not Store(results).rows():
                raise ContractError(
                    f"{results}: no results are stored there; give --results the folder of "
                    "CASE.jsonl files, or train: python training/compare.py --case fatigue"
                )
            print_files([*write_report(results, here), *write_pages(results, here)])
            return
        cases, without = chosen_cases(case, TABLES, kuairand)
        if without:
            print_line(f"left out, for they need --kuairand: {', '.join(without)}")
        plan = Plan(
            cases=cases,
            systems=_systems(method or list(systems())),
            seeds=seed or [1, 2, 3],
            trials=trials,
            control_seeds=(control_seed or [1]) if controls else [],
        )
        runner = Runner(plan, Store(results), work, kuairand, minutes, keep_stale, print_line)
        runner.run_or_refuse(lambda: print_files(write_report(results, here)))


def _systems(names: list[str]) -> list[System]:
    """The named ones, each once; ValueError for a name that is not known."""
    known = systems()
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"--method {unknown[0]}; allowed: {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)]


if __name__ == "__main__":
    app()
