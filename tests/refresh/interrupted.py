"""Attempts at one refresh, each in a child process that may die or find no room. Not a test itself.

    python interrupted.py PLAN FEEDBACK RELEASES REPOSITORY [--set k=v ...]

PLAN is a list of attempts with commas: ``die:STEP`` sends itself SIGKILL when a step begins,
``die:epoch`` when it is about to keep the state of the second epoch, ``full:BYTES`` may write no
larger file, ``run`` is left alone. Prints a line of JSON for each.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
import torch
import typer

from training.command import assignments, console
from training.distributed import Processes
from training.refreshing.pipeline import refresh
from training.refreshing.request import Request
from training.refreshing.settings import read_refresh_settings
from training.release.release_names import PublishError
from training.settings import override


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def attempt(plan: str, request: Request, changes: list[str]) -> dict[str, Any]:
    """Refresh as planned; what came of it."""
    what, _, value = plan.partition(":")
    states = 0

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal states
        if event == "os.rename" and str(arguments[1]).endswith("state.pt"):
            states += 1
            if states == 2:
                die()

    if plan == "die:epoch":
        sys.addaudithook(audit)
    if what == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(value), int(value)))

    def on_step(step: str) -> None:
        if what == "die" and step == value:
            die()

    settings = override(read_refresh_settings(), assignments(changes))
    try:
        summary = refresh(request, settings, Processes(0, 1, torch.device("cpu")), on_step)
    except (PublishError, OSError, ValueError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return dict(msgspec.to_builtins(summary))


def in_child(plan: str, request: Request, changes: list[str]) -> dict[str, Any]:
    """The same in a forked process."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        with os.fdopen(write, "w") as told:
            json.dump(attempt(plan, request, changes), told)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as told:
        text = told.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return {"killed": os.WTERMSIG(status)}
    return dict(json.loads(text))


def main(
    plan: str,
    feedback: str,
    releases: Path,
    repository: Path,
    set_: list[str] = typer.Option([], "--set"),
) -> None:
    torch.set_num_threads(1)
    console.quiet = True
    request = Request(feedback=feedback, releases=releases, repository=repository)
    for one in plan.split(","):
        print(json.dumps({"plan": one, **in_child(one, request, set_)}), flush=True)


if __name__ == "__main__":
    typer.run(main)
