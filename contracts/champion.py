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
    """One change of the champion.

    Attributes:
        release: the champion from then on.
        time: ISO 8601, UTC.
        reason: why, in words.
        rollback: whether the change took an earlier champion back instead of naming a new one.
    """

    release: str
    time: str
    reason: str = ""
    rollback: bool = False

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
        _standing(self.changes)  # says which rollback leads nowhere

    @property
    def release(self) -> str:
        return self.changes[-1].release

    @property
    def earlier(self) -> tuple[str, ...]:
        """The champions that a rollback may take back, the nearest first.

        What was rolled back is not among them, so that a second rollback goes further back and
        never forth.
        """
        return _standing(self.changes)[-2::-1]


def _standing(changes: tuple[ChampionChange, ...]) -> tuple[str, ...]:
    """The champions that stand after the changes, oldest first; the last one is in force."""
    standing: list[str] = []
    for number, change in enumerate(changes):
        if not change.rollback:
            if not standing or standing[-1] != change.release:
                standing.append(change.release)
            continue
        del standing[-1:]
        while standing and standing[-1] != change.release:
            standing.pop()
        if not standing:
            raise ValueError(
                f"changes[{number}] goes back to {change.release}; "
                "allowed: a champion that stood before it"
            )
    return tuple(standing)
