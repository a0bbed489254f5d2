"""Runs the project's commands as a team would, and prints each before it does."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

ROOT = Path(__file__).resolve().parents[2]
REFUSED = 3

console = Console()


def run(
    script: str,
    *arguments: object,
    may_refuse: bool = False,
    timeout_s: float | None = None,
    log: Path | None = None,
) -> int:
    """Run a command; its exit code, 0 or, where that may be part of the story, a refusal's.

    Args:
        timeout_s: after so long it is ended, and counts as failed.
        log: takes what it prints, for a command beside which another runs.
    """
    words = _said(script, arguments)
    try:
        with ExitStack() as stack:
            output = stack.enter_context(log.open("wb")) if log else None
            done = subprocess.run(words, cwd=ROOT, check=False, timeout=timeout_s, stdout=output)
    except subprocess.TimeoutExpired:
        console.print(f"[red]{script} did not end within {timeout_s:g} s[/red]")
        raise typer.Exit(1) from None
    return _checked(script, done.returncode, may_refuse)


def run_for_summary(script: str, *arguments: object) -> dict[str, Any]:
    """Run a command whose last line is a summary in JSON; prints all but that line."""
    words = _said(script, arguments)
    done = subprocess.run(words, cwd=ROOT, check=False, stdout=subprocess.PIPE, text=True)
    *lines, last = done.stdout.rstrip("\n").split("\n")
    for line in lines:
        print(line)
    _checked(script, done.returncode, may_refuse=True)
    summary: dict[str, Any] = json.loads(last)
    return summary


def say(script: str, *arguments: object) -> list[str]:
    """Print a command that somebody else starts; its words for ``Popen``."""
    return _said(script, arguments)


def _said(script: str, arguments: tuple[object, ...]) -> list[str]:
    words = [script, *map(str, arguments)]
    console.rule()
    console.print(f"[bold]$ python {' '.join(words)}[/bold]", highlight=False, soft_wrap=True)
    return [sys.executable, *words]


def _checked(script: str, code: int, may_refuse: bool) -> int:
    if code == 0 or (may_refuse and code == REFUSED):
        return code
    console.print(f"[red]{script} ended with exit code {code}; the demo stops here[/red]")
    raise typer.Exit(code)
