"""The routing: ``routing.json``, the one file that clients read to know whom to ask.

It is compiled from the champion and the running experiments, and switched by one rename, so that a
client sees either all of a change or none of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import Literal

from contracts.events import MAX_ID
from contracts.experiments import CHAMPION, Arm, Experiment, Exploration
from contracts.reading import Strict
from contracts.releases import RELEASE_NAME

ROUTING_FILE = "routing.json"


class Routing(Strict, kw_only=True, frozen=True):
    """Whom to ask for a list, for every request.

    Attributes:
        champion: what serves outside of experiments, and where an arm says so.
        exploration: of every request, save where an experiment's arm has one of its own.
        experiments: those that run; two of them never contradict one another.
    """

    version: Literal[1] = 1
    champion: str
    exploration: Exploration | None = None
    experiments: tuple[Experiment, ...] = ()

    def __post_init__(self) -> None:
        if not RELEASE_NAME.match(self.champion):
            raise ValueError(f"champion {self.champion!r}; allowed: r and at least four digits")
        for one in self.experiments:
            if one.state != "running":
                raise ValueError(f"experiment {one.name} is {one.state}; allowed: running")
        for one, other in combinations(self.experiments, 2):
            _check_pair(one, other)
        _check_labels(self.experiments)

    def release_of(self, arm: Arm) -> str:
        """The name of the release that an arm gets."""
        return self.champion if arm.release == CHAMPION else arm.release

    @property
    def releases(self) -> tuple[str, ...]:
        """Every release that a request may be sent to, sorted; all must be loaded."""
        arms = (arm for experiment in self.experiments for arm in experiment.arms)
        return tuple(sorted({self.champion, *map(self.release_of, arms)}))


def compile_routing(
    champion: str, experiments: Iterable[Experiment], exploration: Exploration | None = None
) -> Routing:
    """The routing of a champion and of those experiments that run, in the order of their names.

    Raises:
        ValueError: two running experiments contradict one another; both are named.
    """
    running = sorted((e for e in experiments if e.state == "running"), key=lambda e: e.name)
    return Routing(champion=champion, exploration=exploration, experiments=tuple(running))


def _check_pair(one: Experiment, other: Experiment) -> None:
    both = f"experiments {one.name} and {other.name}"
    if one.name == other.name:
        raise ValueError(f"experiment {one.name} is given twice")
    if one.salt == other.salt:
        raise ValueError(
            f"{both} have the same salt {one.salt}, so that their arms would go together; "
            "allowed: a salt for each"
        )
    if not one.overlaps(other):
        return
    where = _shared(one, other)
    if one.layer == other.layer:
        raise ValueError(
            f"{both} both run in layer {one.layer} on {where}; allowed: one for each layer and "
            "surface"
        )
    for what in ("release", "exploration"):
        if getattr(one, f"decides_{what}") and getattr(other, f"decides_{what}"):
            raise ValueError(
                f"{both} both decide the {what} on {where}; allowed: one of those that share a "
                "surface, whatever the layer"
            )


def _shared(one: Experiment, other: Experiment) -> str:
    if not one.surfaces or not other.surfaces:
        named = one.surfaces or other.surfaces
    else:
        named = tuple(s for s in one.surfaces if s in other.surfaces)
    return f"surface {', '.join(named)}" if named else "all surfaces"


def _check_labels(experiments: tuple[Experiment, ...]) -> None:
    """What an exposure's ``arm`` may hold must be enough for the labels of every surface."""
    for surface in {"", *(surface for one in experiments for surface in one.surfaces)}:
        here = [one for one in experiments if one.covers(surface)]
        length = sum(len(e.name) + 2 + max(len(arm.name) for arm in e.arms) for e in here) - 1
        if length > MAX_ID:
            raise ValueError(
                f"experiments {', '.join(e.name for e in here)} share a surface, and the names "
                f"of their arms come to {length} characters; allowed: {MAX_ID}; shorten names"
            )
