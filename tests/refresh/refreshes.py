"""Refreshes of the tests' champion: the command in this process, and what it leaves."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.slates import Slate
from tests.refresh.traffic import append
from tests.training.runs import run, settings
from training import refresh
from training.checkpoint import Checkpoint

#: Small training, and gates for a world of 80 users and lists of 5.
TINY = (
    "data.min_slates=500",
    "data.min_with_utility=100",
    "data.max_saturated=0.1",
    "data.max_user_share=0.15",
    "post_train.optim.epochs=6",
    "post_train.optim.learning_rate=3.0e-3",
    "post_train.pairs.draws=1",
    "gates.resamples=100",
    "gates.max_latency_ratio=20",
    "off_policy.min_effective_sample_size=20",
    "off_policy.draws=2",
    "parity_requests=16",
)


@dataclass(frozen=True)
class Place:
    """Where one test refreshes: its own copy of the releases."""

    home: Path
    table: Path

    @property
    def releases(self) -> Path:
        return self.home / "releases"

    @property
    def repository(self) -> Path:
        return self.home / "served"

    def arguments(self, *more: object, changes: Sequence[str] = ()) -> list[str]:
        fixed = ("--feedback", self.table, "--releases", self.releases)
        words = [*fixed, "--repository", self.repository, *settings(*TINY, *changes), *more]
        return [str(word) for word in words]


@dataclass(frozen=True)
class Outcome:
    """How a refresh ended; ``summary`` is the last line of stdout, if that is JSON."""

    code: int
    summary: dict[str, Any]
    output: str

    def failed(self) -> set[str]:
        return {gate["name"] for gate in self.summary["gates"] if not gate["passed"]}


def place(home: Path, releases: Path, table: Path) -> Place:
    """A copy of the releases in ``home``; the table is shared, for refreshes only read it."""
    shutil.copytree(releases, home / "releases")
    return Place(home, table)


def refreshed(where: Place, *more: object, changes: Sequence[str] = ()) -> Outcome:
    """Run the command."""
    result = run(refresh.app, *where.arguments(*more, changes=changes))
    return outcome(result.exit_code, result.stdout, result.output)


def outcome(code: int, stdout: str, output: str) -> Outcome:
    last = stdout.strip().splitlines()[-1:] or [""]
    return Outcome(code, json.loads(last[0]) if last[0].startswith("{") else {}, output)


def table_of(folder: Path, slates: Sequence[Slate], champion: Checkpoint) -> Path:
    """A new table of slates."""
    append(folder, slates, champion.spec)
    return folder


def tree(folder: Path) -> dict[str, str]:
    """Every file and folder below, with the hash of what is in it."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in sorted(folder.rglob("*"))
    }
