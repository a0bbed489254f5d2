"""Options that the commands of ``deploy/rollout.py`` share, and what they stand for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console

from contracts.reading import ContractError
from deploy.local_triton import DEFAULT_HOME, LocalTriton
from deploy.rolling.loading import Install
from deploy.rolling.replicas import Fleet, resolve
from deploy.rolling.rollouts import Rollout
from deploy.rolling.situation import Places
from deploy.triton_install import ROOT, StackError
from training.command import BAD_INPUT, REFUSED, Refused
from training.release.release_names import PublishError
from training.release.store import DamagedError, ReleaseStore

console, errors = Console(), Console(stderr=True)

EXPERIMENTS = ROOT / "deploy" / "experiments"
ROUTING = ROOT / ".local" / "routing.json"

Experiments = Annotated[
    Path,
    typer.Option(
        help="Folder of experiment manifests.",
        envvar="GREF_EXPERIMENTS",
        show_default="deploy/experiments",
    ),
]
Releases = Annotated[Path, typer.Option(help="Folder of releases.", envvar="GREF_RELEASES")]
Routing = Annotated[
    Path,
    typer.Option(
        help="The file that clients read.",
        envvar="GREF_ROUTING",
        show_default=".local/routing.json",
    ),
]
Replicas = Annotated[
    Optional[list[str]],
    typer.Option(
        "--replica",
        envvar="GREF_REPLICAS",
        help="host:port of a Triton's gRPC; repeatable. A DNS name stands for all of its "
        "addresses. Without it the local stack.",
    ),
]
Repositories = Annotated[
    Optional[list[Path]],
    typer.Option(
        "--repository",
        help="A folder that a Triton serves from, to install releases in; repeatable. Without it "
        "they must be there (the local stack's is always filled).",
    ),
]
Home = Annotated[Path, typer.Option(help="Home of the local stack.", show_default=".local/stack")]
Drain = Annotated[
    float,
    typer.Option(min=0, help="Seconds for clients to follow, before anything is unloaded."),
]
Keep = Annotated[
    int, typer.Option(min=0, help="Earlier champions that stay loaded, for an instant rollback.")
]
WaitFor = Annotated[
    float, typer.Option("--wait", min=0, help="Seconds to wait for another rollout.")
]
Reason = Annotated[str, typer.Option(help="Why; kept with the champion.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would change; change nothing.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]

Name = Annotated[str, typer.Argument(help="An experiment.", metavar="NAME")]
Arm = Annotated[
    Optional[str], typer.Option(help="The arm.", show_default="the treatment, if there is one")
]

DEFAULT_RELEASES, DEFAULT_STACK = Path("releases"), DEFAULT_HOME


def places_of(experiments: Path, releases: Path, routing: Path) -> Places:
    """Where the parts lie.

    Raises:
        ContractError: there is no such folder of releases.
    """
    if not releases.is_dir():
        raise ContractError(f"{releases}: no such folder of releases; give --releases")
    return Places(experiments=experiments, routing=routing, store=ReleaseStore(releases))


@contextmanager
def opened(
    places: Places,
    replicas: list[str] | None,
    repositories: list[Path] | None,
    home: Path,
    *,
    optional: bool = False,
    drain: float = 0.0,
    keep: int = 1,
    wait: float = 60.0,
) -> Iterator[Rollout]:
    """A rollout over the replicas that were named, or the local stack.

    Args:
        optional: go on without a replica where none can be found; what needs one is refused later.

    Raises:
        ContractError: no replica was named, and the local stack does not run.
    """
    links = None
    addresses: tuple[str, ...] = ()
    try:
        if replicas:
            addresses = resolve(replicas)
        else:
            stack = LocalTriton(home)
            addresses, links = (stack.state().grpc_url,), stack.home.repository
    except (StackError, ContractError) as error:
        hint = "" if replicas else "; or name replicas: --replica host:port"
        if not optional:
            raise ContractError(f"{error}{hint}") from error
        complain("warning", f"no replica is asked: {error}{hint}")
    install = Install(repositories or (), links)
    with Fleet(addresses) as fleet:
        yield Rollout(places, fleet, install, say, drain_s=drain, keep=keep, wait_s=wait)


def say(words: str) -> None:
    """A line of progress; a warning goes to stderr."""
    if words.startswith("warning: "):
        errors.print(words, style="yellow", markup=False, highlight=False, soft_wrap=True)
    else:
        console.print(words, markup=False, highlight=False, soft_wrap=True)


def complain(what: str, why: object) -> None:
    colour = "red" if what == "error" else "yellow"
    errors.print(f"{what}: {why}", style=colour, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def exit_codes() -> Iterator[None]:
    """2 with the cause on bad input, 3 where a check refused or a release is damaged."""
    try:
        yield
    except OSError as error:  # a full or read-only disk; what was half made is a HalfMadeError
        complain("error", f"{error}; mend that, then run the command again")
        raise typer.Exit(BAD_INPUT) from error
    except (ContractError, PublishError, Refused, ValueError) as error:
        refused = isinstance(error, (DamagedError, Refused))
        complain("refused" if refused else "error", error)
        raise typer.Exit(REFUSED if refused else BAD_INPUT) from error
