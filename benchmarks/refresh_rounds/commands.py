"""The project's own commands, run as people run them; their output goes to a log."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DONE, REFUSED = 0, 3


class CommandError(RuntimeError):
    """A command failed; the message holds the end of what it said."""


def run_command(log: Path, script: str, *arguments: object) -> tuple[int, str]:
    """Run a command; its exit code (done or refused by a gate) and what it printed.

    Raises:
        CommandError: any other exit code.
    """
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ python {' '.join(command[1:])}\n{done.stdout}{done.stderr}\n")
    if done.returncode not in (DONE, REFUSED):
        raise CommandError(
            f"{script} ended with exit code {done.returncode}; {log}:\n{done.stderr[-2000:]}"
        )
    return done.returncode, done.stdout


def last_json(printed: str) -> dict[str, Any]:
    """The JSON object that a command printed as its last line."""
    summary: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    return summary


def train_policy(
    folder: Path, world: Path, lists: int, seed: int, settings: Sequence[str], log: Path
) -> Path:
    """Both stages on production's logs of a world, by the commands; the checkpoint."""
    slates, run = folder / "slates", folder / "run"
    source = ("--source", "simulator", "--world", world, "--lists", lists, "--seed", seed)
    run_command(log, "training/prepare.py", *source, "--out", slates, "--force")
    changes = [word for text in settings for word in ("--set", text)]
    run_command(log, "training/pretrain.py", "--data", slates, "--out", run, *changes)
    code, printed = run_command(
        log,
        *("training/post_train.py", "--data", slates, "--out", run),
        *("--checkpoint", run / "pretrain" / "best.pt", *changes),
    )
    if code == REFUSED:
        raise CommandError(
            f"post-training on {lists} slates was refused, so there is nothing to refresh; give "
            f"more slates. {printed.strip()[-500:]}"
        )
    return run / "post_train" / "best.pt"
