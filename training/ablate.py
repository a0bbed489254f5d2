"""Answer one question about the recipe: train the arms of an ablation, and write its page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Optional

import torch
import typer
from rich.table import Table

from training.ablations.ablation import Ablation, thinned
from training.ablations.entries import ABLATIONS
from training.ablations.report import write_pages
from training.command import console, exit_codes, print_files, print_line
from training.comparison.bound_systems import ExposedSystem
from training.comparison.cases import Case, chosen_cases
from training.comparison.jobs import Plan
from training.comparison.running import Runner
from training.comparison.store import Store
from training.comparison.system import System

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "evaluation" / "results"

EPILOG = """Examples:

python training/ablate.py --list

python training/ablate.py beta --case fatigue --seed 1

python training/ablate.py draws --share 0.25

python training/ablate.py stages --kuairand KuaiRand-Pure/data

python training/ablate.py --all --minutes 480

A run that was killed goes on with the same command; a second process shares the work.
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class ArmsPlan(Plan):
    """The given pairs of case and system in the place of their product."""

    pairs: Sequence[tuple[Case, System]] = ()

    def _pairs(self) -> list[tuple[Case, System]]:
        return list(self.pairs)


@app.command(epilog=EPILOG)
def main(
    name: Annotated[Optional[str], typer.Argument(help=f"One of: {', '.join(ABLATIONS)}.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every ablation.")] = False,
    show: Annotated[bool, typer.Option("--list", help="Say what there is, and stop.")] = False,
    case: Annotated[
        Optional[list[str]], typer.Option(help="Only on this case; may be given again.")
    ] = None,
    arm: Annotated[
        Optional[list[str]], typer.Option(help="Only this arm, by label; may be given again.")
    ] = None,
    seed: Annotated[
        Optional[list[int]], typer.Option(min=1, help="Of a training; 1, 2 and 3 if left.")
    ] = None,
    control_seed: Annotated[
        Optional[list[int]], typer.Option(min=1, help="Also on shuffled feedback, with this seed.")
    ] = None,
    share: Annotated[
        float,
        typer.Option(help="Of the train lists, for all arms: quicker, less sure. Up to 1."),
    ] = 1.0,
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
        Optional[Path], typer.Option(help="Folder of pages; that above the results.")
    ] = None,
    keep_stale: Annotated[
        bool, typer.Option("--keep-stale", help="Count results of an earlier state of the code.")
    ] = False,
) -> None:
    """Train an ablation's arms with each seed, untuned; writes docs/evaluation/ablations/.

    Exit code 0: all done; 2: bad input; 3: some trainings failed, or the time was up.
    """
    torch.set_num_threads(1)
    if show:
        console.print(_listing())
        return
    with exit_codes():
        if (name is None) == (not everything):
            raise ValueError(f"name one ablation, or --all; allowed: {', '.join(ABLATIONS)}")
        if name is not None and name not in ABLATIONS:
            raise ValueError(f"no ablation {name}; allowed: {', '.join(ABLATIONS)}")
        if not 0 < share <= 1:
            raise ValueError(f"--share {share}; allowed: above 0, up to 1")
        chosen = [ABLATIONS[name]] if name else list(ABLATIONS.values())
        pairs = [one for each in chosen
                 for one in pairs_of(each, case, arm, kuairand, share, everything)]  # fmt: skip
        plan = ArmsPlan(
            cases=(),
            systems=(),
            seeds=seed or [1, 2, 3],
            trials=1,
            control_seeds=control_seed or [],
            pairs=list({(one.name, two.name): (one, two) for one, two in pairs}.values()),
        )
        runner = Runner(plan, Store(results), work, kuairand, minutes, keep_stale, print_line)
        runner.run_or_refuse(lambda: print_files(write_pages(results, out or results.parent)))


def pairs_of(
    ablation: Ablation,
    cases: list[str] | None,
    arms: list[str] | None,
    kuairand: Path | None,
    share: float = 1.0,
    one_of_all: bool = False,
) -> list[tuple[Case, System]]:
    """What an ablation trains; beside each dataset its exposure order, whose quality is stated.

    Args:
        one_of_all: every ablation was asked for: what this one cannot have is left out, and said.

    Raises:
        ValueError: a case that there is not, without its files, or without what the ablation
            changes; an arm that the ablation does not have.
    """
    labels = [arm.label for arm in ablation.arms]
    if unknown := [one for one in arms or () if one not in labels]:
        raise ValueError(f"--arm {unknown[0]}; allowed: {', '.join(labels)}")
    chosen, without = chosen_cases(cases, ablation.cases, kuairand)
    if without:
        print_line(f"{ablation.name}: left out, for they need --kuairand: {', '.join(without)}")
    found: list[tuple[Case, System]] = []
    for base in (thinned(case, share) for case in chosen):
        if one_of_all and not ablation.fits(base):
            print_line(f"{ablation.name}: left out on {base.name}, which not all its arms can have")
            continue
        for arm in ablation.arms:
            if not arms or arm.label in arms:
                case = arm.case(base)
                found += [(case, ExposedSystem()), (case, arm.system(case))]
    return found


def _listing() -> Table:
    table = Table("name", "question", "arms", "cases")
    for one in ABLATIONS.values():
        table.add_row(one.name, one.question, str(len(one.arms)), ", ".join(one.cases))
    return table


if __name__ == "__main__":
    app()
