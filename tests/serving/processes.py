"""Processes of serving tests: commands of the project, and what a server started below it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(script: str | Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script of the project from its root, as a person would."""
    return subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def children(parent: int) -> dict[int, str]:
    """Living children of a process: pid to command line."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # it has just ended
        if int(stat[1]) == parent and stat[0] != "Z":
            found[int(folder.name)] = command
    return found


def wait_until(condition: Callable[[], bool], what: str, limit_s: float = 60.0) -> None:
    """Wait for a condition, long enough for any machine; fails with ``what`` was awaited."""
    give_up = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < give_up, f"waited {limit_s:g} s in vain: {what}"
        time.sleep(0.02)
