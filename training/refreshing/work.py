"""The work folder of a refresh: named by its input's identity, so that a killed one goes on.

    <work>/<identity>/
      slates/           the prepared dataset
      run/post_train/   checkpoints that resume by themselves, history, evaluators, best.pt
      training.json     what the run came to
      evaluation.json   champion and candidate
      engines/          the candidate's engines
      latency.json
      report/           made anew by whoever gets that far

Every file and folder appears by a rename when it is whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from contracts.reading import Strict, read_json
from training.release.durable import write_durably

T = TypeVar("T", bound=Strict)


class Work:
    """The folder of one refresh."""

    def __init__(self, root: Path, identity: str) -> None:
        self.folder = root / identity[:16]
        self.slates = self.folder / "slates"
        self.run = self.folder / "run"
        self.engines = self.folder / "engines"
        self.report = self.folder / "report"

    def begin(self) -> None:
        """Make the folder, and remove those of other refreshes: this one holds the lock."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for other in self.folder.parent.iterdir():
            if other != self.folder and other.is_dir() and _is_ours(other.name):
                shutil.rmtree(other, ignore_errors=True)

    def once(self, name: str, kind: type[T], make: Callable[[], T]) -> T:
        """What an earlier attempt noted under ``name``, or ``make`` it and note it."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            plain = msgspec.to_builtins(make())
            write_durably(path, (json.dumps(plain, indent=1) + "\n").encode())
        return read_json(path, kind)

    def remove(self) -> None:
        """All of it; and the folder of work folders where it is empty then."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.folder.parent.is_dir() and not any(self.folder.parent.iterdir()):
            self.folder.parent.rmdir()


def _is_ours(name: str) -> bool:
    return len(name) == 16 and not set(name) - set("0123456789abcdef")
