"""Which release is the champion: ``champion.json`` in the folder of releases.

The champion is what a refresh starts from and is measured against. Serving follows the experiment
manifests; without an experiment all traffic goes to the champion.
"""

from __future__ import annotations

from typing import Literal

from contracts.reading import Strict
from contracts.releases import RELEASE_NAME

CHAMPION_FILE = "champion.json"


class ChampionChange(Strict, kw_only=True, frozen=True):
    """One change of the champion: the release, when (ISO 8601, UTC), and why."""

    release: str
    time: str
    reason: str = ""

    def __post_init__(self) -> None:
        if not RELEASE_NAME.match(self.release):
            raise ValueError(f"release {self.release!r}; allowed: r and at least four digits")


class ChampionFile(Strict, kw_only=True, frozen=True):
    """``champion.json``: every change, the newest last; the last one is in force."""

    version: Literal[1] = 1
    changes: tuple[ChampionChange, ...]

    def __post_init__(self) -> None:
        if not self.changes:
            raise ValueError("changes is empty; allowed: at least one")

    @property
    def release(self) -> str:
        return self.changes[-1].release
