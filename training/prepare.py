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
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from contracts.datasets import Dataset
from contracts.reading import ContractError, read_yaml
from training.sources.avito import Avito, AvitoSettings
from training.sources.base import Source, SourceError
from training.sources.initial_ranker import RankerSettings
from training.sources.kuairand import KuaiRand
from training.sources.kuairand_settings import KuaiRandSettings
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
    avito = "avito"


WORLDS = ", ".join(PRESETS)
DAYS = ("valid_from", "test_from", "test_until")
#: Which options a source takes, beside those that all take.
OPTIONS = {
    SourceName.simulator: ("list_size", "lists", "world"),
    SourceName.kuairand: ("input", "list_size", "shown", "earlier_until", *DAYS),
    SourceName.avito: ("input", "list_size", "clicked_only", *DAYS),
}


@app.command(epilog=EPILOG)
def prepare(
    source: Annotated[SourceName, typer.Option(help="Where the lists come from.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    input: Annotated[
        Optional[Path], typer.Option(help="Folder of the source's files; not for the simulator.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all that is drawn.")] = 1,
    list_size: Annotated[
        Optional[int],
        typer.Option(min=2, max=64, help="Length of lists; the source's own if left."),
    ] = None,
    shown: Annotated[
        Optional[int],
        typer.Option(min=2, help="KuaiRand: the first so many of a list count as shown; else all."),
    ] = None,
    lists: Annotated[
        Optional[int], typer.Option(min=1, help="Simulator: number of requests (20000).")
    ] = None,
    world: Annotated[
        Optional[str],
        typer.Option(help=f"Simulator: {WORLDS} (noisy if left), or a YAML of settings."),
    ] = None,
    earlier_until: Annotated[
        Optional[str], typer.Option(help="KuaiRand without sequences: what trains the ranker.")
    ] = None,
    valid_from: Annotated[Optional[str], typer.Option(help="First day of valid.")] = None,
    test_from: Annotated[Optional[str], typer.Option(help="First day of test.")] = None,
    test_until: Annotated[Optional[str], typer.Option(help="First day after test.")] = None,
    clicked_only: Annotated[
        bool, typer.Option("--clicked-only", help="Avito: only searches with a click.")
    ] = False,
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
    given: dict[str, Any] = {
        "input": input,
        "list_size": list_size,
        "shown": shown,
        "lists": lists,
        "world": world,
        "earlier_until": earlier_until,
        "valid_from": valid_from,
        "test_from": test_from,
        "test_until": test_until,
        "clicked_only": clicked_only or None,
    }
    given = {name: value for name, value in given.items() if value is not None}
    try:
        check_target(out, force)
        made = make_source(source, seed, given)
    except ValueError as error:  # of settings, too
        raise _refuse(error) from error
    try:
        dataset = _write(made, out, force, seed if shuffle_feedback else None)
    except (SourceError, ContractError) as error:
        raise _refuse(error) from error
    except OSError as error:
        raise _refuse(f"{out}: cannot be written: {error}; nothing was changed") from error
    _report(dataset, out)


def _refuse(why: object) -> typer.Exit:
    Console(stderr=True).print(
        f"[red]error:[/red] {escape(str(why))}", highlight=False, soft_wrap=True
    )
    return typer.Exit(2)


def make_source(name: SourceName, seed: int, given: dict[str, Any]) -> Source:
    """The source that the options ask for; ``given`` holds those that were given.

    Raises:
        SourceError: an option that is not for this source, or --input is missing.
    """
    for option in given:
        if option not in OPTIONS[name]:
            raise SourceError(f"--{option.replace('_', '-')} is not for --source {name.value}")
    if name is SourceName.simulator:
        return Simulator(_simulator_settings(seed, **given))
    if "input" not in given:
        raise SourceError(f"--source {name.value} needs --input, the folder of its files")
    folder = given.pop("input")
    if name is SourceName.avito:
        return Avito(folder, AvitoSettings(**given))
    return KuaiRand(folder, KuaiRandSettings(**given, ranker=RankerSettings(seed=seed)))


def _simulator_settings(
    seed: int, world: str = "noisy", list_size: int | None = None, lists: int = 20_000
) -> SimulatorSettings:
    settings = PRESETS[world] if world in PRESETS else read_yaml(world, WorldSettings)
    if list_size is not None:
        settings = msgspec.structs.replace(settings, list_size=list_size)
    return SimulatorSettings(world=settings, lists=lists, seed=seed)


def _write(source: Source, out: Path, force: bool, shuffle: int | None) -> Dataset:
    words = TextColumn("{task.description}")
    columns = SpinnerColumn(), words, MofNCompleteColumn(), TextColumn("lists"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("making lists", total=source.expected_lists())
        return write_dataset(
            source,
            out,
            force=force,
            shuffle=shuffle,
            progress=lambda count: bar.update(task, completed=count),
            stage=lambda what: bar.update(task, description=what),
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
        rows.add_row(f"{number:,}", f"[yellow]dropped:[/yellow] {escape(why)}")
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
