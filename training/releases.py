"""Look after the folder of releases: what is there, who is the champion, and how to go back.

The champion is what a refresh starts from and is measured against. A release never changes; what
changes is champion.json, and it remembers every champion that there was.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Optional

import msgspec
import typer
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from contracts.champion import CHAMPION_FILE
from contracts.reading import ContractError
from training.command import BAD_INPUT, REFUSED, Refused, console, errors
from training.release import release_views as views
from training.release.difference import differences
from training.release.experiments import releases_named
from training.release.release_names import PublishError
from training.release.store import DamagedError, ReleaseStore

EXAMPLES = """
Examples:

  python training/releases.py list

  python training/releases.py show r0007

  python training/releases.py diff r0006 r0007

  python training/releases.py rollback --reason "clicks fell since noon"

  python training/releases.py champion r0005 --reason "chosen by hand"

  python training/releases.py verify --all

  python training/releases.py prune --keep 5 --dry-run

Exit codes: 0 done, 2 bad input, 3 refused: a release or the record of champions is damaged.
"""

EXPERIMENTS = Path(__file__).resolve().parents[1] / "deploy" / "experiments"

Folder = Annotated[Path, typer.Option("--releases", help="Folder of releases.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Name = Annotated[str, typer.Argument(help="A release: r0007.", metavar="NAME")]
Reason = Annotated[str, typer.Option(help="Why; kept with the change.")]
Wait = Annotated[float, typer.Option(min=0, help="Seconds to wait for another publisher.")]
Repository = Annotated[Path, typer.Option(help="The folder that Triton serves from.")]
DEFAULT = Path("releases")

app = typer.Typer(
    help=__doc__, epilog=EXAMPLES, add_completion=False, no_args_is_help=True, rich_markup_mode=None
)


@app.command("list")
def list_releases(releases: Folder = DEFAULT, as_json: Json = False) -> None:
    """Print every release: when, from what, on which data, its gates and size."""
    with _reported():
        store = _store(releases)
        champion = _champion_name(store)
        rows = views.rows(store, champion)
        if as_json:
            _print_json(rows)
        elif rows:
            _print(views.release_table(rows))
            for row in rows:
                if "damaged" in row:
                    _complain("damaged", row["damaged"])
        else:
            console.print("no releases yet; publish one: python training/publish.py")


@app.command()
def show(name: Name, releases: Folder = DEFAULT, as_json: Json = False) -> None:
    """Print a release: its manifest, its gates, and its lineage back to the anchor."""
    with _reported():
        store = _store(releases)
        manifest, steps, champion = store.manifest(name), store.lineage(name), _champion_name(store)
        if as_json:
            lineage = [{"name": step.name, "state": step.state} for step in steps]
            plain = {"champion": name == champion, "path": str(store.path(name))}
            _print_json({**plain, "lineage": lineage, "manifest": msgspec.to_builtins(manifest)})
            return
        console.print(f"[bold]{name}[/]{' is the champion' if name == champion else ''}")
        _print(views.facts_table(store.path(name), manifest))
        console.print()
        _print(views.gates_table(manifest.gates))
        console.print()
        _print(views.lineage_tree(steps, champion))


@app.command()
def diff(
    first: Annotated[str, typer.Argument(metavar="A")],
    second: Annotated[str, typer.Argument(metavar="B")],
    releases: Folder = DEFAULT,
    as_json: Json = False,
) -> None:
    """Print what is different between two releases, and the metrics that both have."""
    with _reported():
        store = _store(releases)
        manifests = store.manifest(first), store.manifest(second)
        found = differences(store.path(first), store.path(second), manifests)
        if as_json:
            _print_json(msgspec.to_builtins(found))
        elif found:
            _print(views.difference_table(found, first, second))
        else:
            console.print(f"{first} and {second} differ in nothing but name and time")


@app.command()
def champion(
    name: Annotated[
        Optional[str], typer.Argument(help="Make this release the champion.", metavar="[NAME]")
    ] = None,
    reason: Reason = "",
    history: Annotated[bool, typer.Option("--history", help="Print every change.")] = False,
    releases: Folder = DEFAULT,
    wait: Wait = 60.0,
    as_json: Json = False,
) -> None:
    """Print the champion, or make a release the champion; its files are verified first."""
    with _reported():
        store = _store(releases, wait)
        if name is not None:
            damaged = _damaged_records(store)
            changed = store.set_champion(name, reason)
            for path in sorted(_damaged_records(store) - damaged):
                errors.print(f"the old record was damaged and is kept: {path}", soft_wrap=True)
            if not (as_json or changed):
                errors.print(f"{name} was the champion already; nothing was changed")
        current, record = store.champion(), store.record()
        if as_json:
            _print_json({"champion": current, **msgspec.to_builtins(record)})
            return
        console.print(_in_force(store), highlight=False, soft_wrap=True)
        if history:
            table = Table(box=None, pad_edge=False)
            for head in ("time", "champion", "", "reason"):
                table.add_column(head)
            for one in record.changes:
                back = "rollback" if one.rollback else ""
                table.add_row(escape(one.time), one.release, back, escape(one.reason))
            _print(table)


@app.command()
def rollback(
    reason: Reason = "", releases: Folder = DEFAULT, wait: Wait = 60.0, as_json: Json = False
) -> None:
    """Go back to the champion before this one; once more goes further back, never forth.

    A release that is damaged or gone is passed over. Serving follows the experiments: what Triton
    has loaded stays loaded.
    """
    with _reported():
        store = _store(releases, wait)
        before = store.record().release
        change = store.roll_back(reason)
        if as_json:
            _print_json({"from": before, **msgspec.to_builtins(change)})
        else:
            console.print(f"from {before} back to:", highlight=False)
            console.print(_in_force(store), highlight=False, soft_wrap=True)


@app.command()
def verify(
    names: Annotated[Optional[list[str]], typer.Argument(metavar="[NAME]...")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every release and the record of champions.")
    ] = False,
    releases: Folder = DEFAULT,
    as_json: Json = False,
) -> None:
    """Check every file of releases against its hash; exit code 3 where something is damaged."""
    with _reported():
        if bool(names) == everything:
            raise ContractError("give names of releases, or --all")
        store = _store(releases)
        chosen = list(store.names() if everything else names or ())
        for name in chosen:
            store.path(name)
        found = {
            name: _damage(store, name)
            for name in track(chosen, "verifying", console=errors, transient=True)
        }
        if everything and (store.folder / CHAMPION_FILE).exists():
            found[CHAMPION_FILE] = _record_damage(store)
        if as_json:
            _print_json(found)
        for name, damage in found.items() if not as_json else ():
            state = f"[red]DAMAGED[/] {escape(damage)}" if damage else "[green]ok[/]"
            console.print(f"{name} {state}", highlight=False, soft_wrap=True)
        if any(found.values()):
            raise typer.Exit(REFUSED)


@app.command()
def prune(
    keep: Annotated[int, typer.Option(min=1, help="How many of the newest releases stay.")],
    experiments: Annotated[
        Optional[Path],
        typer.Option(
            help="Folder of experiment manifests; what they name stays.",
            show_default="deploy/experiments, where it is there",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say it, and delete nothing.")] = False,
    releases: Folder = DEFAULT,
    wait: Wait = 60.0,
    as_json: Json = False,
) -> None:
    """Delete old releases, but none that is still needed.

    Kept in any case: the champion, what a rollback would take back, what an experiment names, and
    the anchor of each release that stays. Names are never used again, and the manifests stay for
    the lineage.
    """
    with _reported():
        store = _store(releases, wait)
        folder = experiments or EXPERIMENTS
        named = releases_named(folder) if experiments or EXPERIMENTS.exists() else {}
        plan = store.plan_pruning(keep, named) if dry_run else store.prune(keep, named)
        if as_json:
            _print_json({"deleted": plan.delete, "kept": plan.keep, "dry_run": dry_run})
            return
        table = Table(box=None, show_header=False, pad_edge=False)
        gone = "would be deleted" if dry_run else "deleted"
        for name in plan.delete:
            table.add_row(name, f"[red]{gone}[/]")
        for name, why in plan.keep.items():
            table.add_row(name, f"stays: {why}" + (f" ({named[name]})" if name in named else ""))
        _print(table)


@app.command()
def install(
    name: Name,
    repository: Repository,
    releases: Folder = DEFAULT,
    compute_capability: Annotated[
        Optional[str], typer.Option(help="Of the GPU that serves, where it is another machine's.")
    ] = None,
    container: Annotated[Optional[str], typer.Option(help="Tag of the serving container.")] = None,
    tensorrt: Annotated[Optional[str], typer.Option(help="TensorRT's version there.")] = None,
    cpu: Annotated[Optional[str], typer.Option(help="Instruction set there: AVX2.")] = None,
    torch: Annotated[
        Optional[str], typer.Option(help="torch's version there, for compiled packages.")
    ] = None,
) -> None:
    """Copy a release's models into the repository that a Triton serves from; idempotent.

    Engines that were built for another GPU, version or container are refused.
    """
    from training.release.installing import install as copy  # it brings torch along
    from training.release.serving_machine import this_machine

    with _reported():
        machine = partial(
            this_machine,
            compute_capability=compute_capability,
            container=container,
            tensorrt=tensorrt,
            cpu=cpu,
            torch=torch,
        )
        copied = copy(_store(releases).path(name), repository, machine=machine)
        told = f"installed {', '.join(copied)}" if copied else f"{name} was installed already"
        console.print(f"{told} in {repository}", highlight=False, soft_wrap=True)


@app.command()
def uninstall(name: Name, repository: Repository, releases: Folder = DEFAULT) -> None:
    """Take a release's models out of a served repository; unload them first. Not the champion's."""
    from training.release.installing import uninstall as take_out  # it brings torch along

    with _reported():
        if name == _store(releases).record().release:
            raise DamagedError(
                f"{name} is the champion; without an experiment it is what is served"
            )
        removed = take_out(name, repository)
        told = f"took out {', '.join(removed)}" if removed else f"{name} was not installed"
        console.print(told, highlight=False, soft_wrap=True)


def _store(releases: Path, wait_s: float = 60.0) -> ReleaseStore:
    if not releases.is_dir():
        raise ContractError(f"{releases}: no such folder of releases; give --releases")
    return ReleaseStore(releases, wait_s)


def _champion_name(store: ReleaseStore) -> str | None:
    """The champion; where there is none, says why on stderr and goes on."""
    try:
        return store.record().release
    except ContractError as error:
        if store.names():
            errors.print(f"note: {error}", style="yellow", markup=False, soft_wrap=True)
        return None


def _in_force(store: ReleaseStore) -> str:
    last = store.record().changes[-1]
    return f"{last.release} since {escape(last.time)}" + (
        f" ({escape(last.reason)})" if last.reason else ""
    )


def _damage(store: ReleaseStore, name: str) -> str | None:
    try:
        store.verify(name)
    except ContractError as error:
        return str(error)
    return None


def _record_damage(store: ReleaseStore) -> str | None:
    try:
        store.path(store.record().release)
    except ContractError as error:
        return str(error)
    return None


def _damaged_records(store: ReleaseStore) -> set[Path]:
    return set(store.folder.glob(f"{CHAMPION_FILE}.damaged-*"))


def _print(what: RenderableType) -> None:
    """As wide as it is: a path that is broken into two lines is no use to anybody."""
    Console(width=max(console.width, 1000)).print(what, crop=False)


def _complain(what: str, why: object) -> None:
    errors.print(f"{what}: {why}", style="red", markup=False, highlight=False, soft_wrap=True)


def _print_json(plain: Any) -> None:
    sys.stdout.write(json.dumps(plain, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except (ContractError, PublishError, Refused, OSError) as error:
        refused = isinstance(error, (DamagedError, Refused))
        _complain("refused" if refused else "error", error)
        raise typer.Exit(REFUSED if refused else BAD_INPUT) from None


if __name__ == "__main__":
    app()
