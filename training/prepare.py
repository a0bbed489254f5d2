"""Turn a data source into slates: ``python training/prepare.py --source simulator --out slates/``.

The command is in this file; what a source is, in training/sources/base.py; how slates are
written, in training/sources/writing.py; the formats, in docs/data.md.
"""

from __future__ import annotations

import enum
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Optional

import msgspec
import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from contracts.datasets import Dataset
from contracts.reading import ContractError, read_yaml
from training.sources.base import Source, SourceError
from training.sources.initial_ranker import RankerSettings
from training.sources.kuairand import KuaiRand, KuaiRandSettings
from training.sources.simulator import Simulator, SimulatorSettings
from training.sources.world import PRESETS, WorldSettings
from training.sources.writing import check_target, write_dataset

EPILOG = """Examples:

python training/prepare.py --source simulator --world noisy --lists 20000 --out slates/

python training/prepare.py --source kuairand --input KuaiRand-Pure/data --out slates/

python training/prepare.py --source avito --input avito/ --out slates/
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console()


class SourceName(str, enum.Enum):
    simulator = "simulator"
    kuairand = "kuairand"


@app.command(epilog=EPILOG)
def prepare(
    source: Annotated[SourceName, typer.Option(help="Where the lists come from.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    input: Annotated[
        Optional[Path], typer.Option(help="Folder of the source's files; not for the simulator.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all that is drawn.")] = 1,
    list_size: Annotated[
        Optional[int],
        typer.Option(min=2, max=64, help="Length of lists; the source's own if left."),
    ] = None,
    lists: Annotated[int, typer.Option(min=1, help="Simulator: number of requests.")] = 20_000,
    world: Annotated[
        str, typer.Option(help="Simulator: noisy, strong, or a YAML file of world settings.")
    ] = "noisy",
    earlier_until: Annotated[
        Optional[str], typer.Option(help="KuaiRand without sequences: what trains the ranker.")
    ] = None,
    valid_from: Annotated[Optional[str], typer.Option(help="First day of valid.")] = None,
    test_from: Annotated[Optional[str], typer.Option(help="First day of test.")] = None,
    test_until: Annotated[Optional[str], typer.Option(help="First day after test.")] = None,
    shuffle_feedback: Annotated[
        bool,
        typer.Option(
            "--shuffle-feedback",
            help="The control: permute feedback among the lists of train and of valid.",
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a dataset that this command made.")
    ] = False,
) -> None:
    """Write a source's lists as slates, split by time, and print what was kept and dropped.

    Exit code 0: done; 2: the input or an option cannot be used.
    """
    try:
        check_target(out, force)
        days = {
            "earlier_until": earlier_until,
            "valid_from": valid_from,
            "test_from": test_from,
            "test_until": test_until,
        }
        given = {name: day for name, day in days.items() if day is not None}
        if source is SourceName.simulator:
            made: Source = _simulator(world, list_size, lists, seed)
        else:
            made = _logged(source, input, list_size, seed, given)
        dataset = _write(made, out, force, seed if shuffle_feedback else None)
    except (SourceError, ContractError, ValueError) as error:
        Console(stderr=True).print(f"[red]error:[/red] {error}", highlight=False)
        raise typer.Exit(2) from error
    _report(dataset, out)


def _simulator(world: str, list_size: int | None, lists: int, seed: int) -> Source:
    settings = PRESETS[world] if world in PRESETS else read_yaml(world, WorldSettings)
    if list_size is not None:
        settings = msgspec.structs.replace(settings, list_size=list_size)
    return Simulator(SimulatorSettings(world=settings, lists=lists, seed=seed))


def _logged(
    name: SourceName, folder: Path | None, list_size: int | None, seed: int, days: dict[str, str]
) -> Source:
    if folder is None:
        raise SourceError(f"--source {name.value} needs --input, the folder of its files")
    changed: dict[str, Any] = {**days, "ranker": RankerSettings(seed=seed)}
    if list_size is not None:
        changed["list_size"] = list_size
    return KuaiRand(folder, KuaiRandSettings(**changed))


def _write(source: Source, out: Path, force: bool, shuffle: int | None) -> Dataset:
    columns = SpinnerColumn(), TextColumn("lists"), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("lists", total=source.expected_lists())
        return write_dataset(
            source,
            out,
            force=force,
            shuffle=shuffle,
            progress=lambda count: bar.update(task, completed=count),
        )


def _report(dataset: Dataset, out: Path) -> None:
    splits = Table("split", title=f"{dataset.source}: {out}", title_justify="left")
    for name in ("lists", "exposures", "users", "with utility"):
        splits.add_column(name, justify="right")
    splits.add_column("from")
    splits.add_column("to")
    for name, counts in dataset.splits.items():
        numbers = counts.lists, counts.exposures, counts.users, counts.with_utility
        times = counts.first_time, counts.last_time
        splits.add_row(name, *(f"{n:,}" for n in numbers), *(_clock(time) for time in times))
    console.print(splits)
    rows = Table("rows", "what, or why not")
    rows.columns[0].justify = "right"
    for what, number in dataset.kept.items():
        rows.add_row(f"{number:,}", f"kept: {what}")
    for why, number in sorted(dataset.dropped.items()):
        rows.add_row(f"{number:,}", f"[yellow]dropped:[/yellow] {why}")
    console.print(rows)
    if dataset.facts:
        facts = Table("measured", "value")
        for what, value in dataset.facts.items():
            facts.add_row(what, f"{value:.4f}")
        console.print(facts)
    if dataset.source == "simulator":
        console.print("The lists and the true clicks are simulated.")
    if dataset.shuffled_feedback:
        console.print("[yellow]Feedback of train and valid is shuffled: a control run.[/yellow]")


def _clock(time_ms: int | None) -> str:
    if time_ms is None:
        return "-"
    return datetime.fromtimestamp(time_ms / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M")


if __name__ == "__main__":
    app()
