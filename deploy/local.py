"""Run the local stack: a real Triton on the loopback address, serving a release.

Triton comes from a wheel that is installed aside on first use (.local/triton), or from a
tritonserver that is already there (--triton). Its state, log and served repository lie in
.local/stack. TorchServe, the alternative, has commands of its own: torchserve --help.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from contracts.engine_fit import check_engines_fit
from contracts.reading import ContractError
from contracts.releases import verify_release
from deploy.local_triton import DEFAULT_HOME, LocalTriton, TritonCrashedError
from deploy.served_repository import local_triton, newest_release
from deploy.torchserve_commands import app as torchserve
from deploy.triton_install import StackError
from deploy.triton_process import Ports, StackState

EXAMPLES = """
Examples:

  python deploy/local.py up                             the newest release of releases/

  python deploy/local.py up --release releases/r0003 --grpc-port 0

  python deploy/local.py status

  python deploy/local.py down

  python deploy/local.py torchserve up

Exit codes: 0 done, 1 Triton is not running or has crashed, 2 bad input.
"""

NOT_RUNNING, BAD_INPUT = 1, 2

Home = Annotated[
    Path,
    typer.Option(help="Folder of state, log and served repository.", show_default=".local/stack"),
]

app = typer.Typer(
    help=__doc__, epilog=EXAMPLES, add_completion=False, no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(torchserve, name="torchserve")
console, errors = Console(), Console(stderr=True)


@app.command()
def up(
    release: Annotated[
        Path | None, typer.Option(help="Folder of a release; without it the newest of --releases.")
    ] = None,
    releases: Annotated[Path, typer.Option(help="Folder of releases.")] = Path("releases"),
    http_port: Annotated[int, typer.Option(help="0 takes any free port.")] = 8000,
    grpc_port: Annotated[int, typer.Option(help="0 takes any free port.")] = 8001,
    metrics_port: Annotated[int, typer.Option(help="0 takes any free port.")] = 8002,
    triton: Annotated[
        Path | None,
        typer.Option(
            envvar="GREF_TRITON",
            help="A tritonserver binary, or a folder with the wheel; without it the wheel is used.",
        ),
    ] = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Start Triton unless it runs, and load a release."""
    with _reported(BAD_INPUT):
        folder = release or newest_release(releases)
        # Before Triton is started for nothing.
        manifest = verify_release(folder)
        check_engines_fit(manifest, local_triton(manifest))
        ports = Ports(http=http_port, grpc=grpc_port, metrics=metrics_port)
        stack = LocalTriton(home, triton=triton, ports=ports)
        with console.status("starting Triton (the first time it is installed)"):
            state = stack.up()
        with console.status(f"loading {folder.name}"):
            name = stack.load(folder)
        console.print(f"Triton serves [bold]{name}[/bold]")
        _print_state(state, stack)


@app.command()
def status(home: Home = DEFAULT_HOME) -> None:
    """Say whether Triton runs, where, and what it serves; after a crash, the end of its log."""
    with _reported(NOT_RUNNING):
        stack = LocalTriton(home)
        _print_state(stack.state(), stack)


@app.command()
def logs(
    lines: Annotated[int, typer.Option("--lines", "-n", min=1)] = 50, home: Home = DEFAULT_HOME
) -> None:
    """Print the end of Triton's log."""
    print(LocalTriton(home).log_tail(lines))


@app.command()
def down(home: Home = DEFAULT_HOME) -> None:
    """Stop the Triton that `up` started, and nothing else."""
    with _reported(BAD_INPUT), console.status("stopping Triton"):
        ran = LocalTriton(home).down()
    console.print("Triton is stopped" if ran else "Triton was not running")


def _print_state(state: StackState, stack: LocalTriton) -> None:
    table = Table(show_header=False, box=None)
    table.add_row("gRPC", state.grpc_url)
    table.add_row("HTTP", f"http://127.0.0.1:{state.ports.http}")
    table.add_row("metrics", f"http://127.0.0.1:{state.ports.metrics}/metrics")
    for release in stack.releases():
        # Triton calls a model ready whose process has died, so each is asked.
        table.add_row("release", escape(f"{release}: {stack.failure(release) or 'answers'}"))
    table.add_row("process", str(state.pid))
    table.add_row("log", state.log)
    console.print(table)


@contextmanager
def _reported(code: int) -> Iterator[None]:
    try:
        yield
    except (StackError, ContractError, OSError) as error:
        told = f"error: {error}"  # Triton's words may hold brackets, which are no markup
        errors.print(told, style="red", markup=False, highlight=False, soft_wrap=True)
        crashed = isinstance(error, TritonCrashedError)
        raise typer.Exit(NOT_RUNNING if crashed else code) from None


if __name__ == "__main__":
    app()
