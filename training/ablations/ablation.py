"""What an ablation is, and its arms as cases and systems of training/comparison."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import yaml

from contracts.reading import Strict
from training.comparison.cases import Case
from training.comparison.gref import Gref
from training.comparison.utilities import Utility
from training.settings import override

Stages = Literal["both", "pre", "post"]

_STAGES: dict[str, tuple[str, ...]] = {
    "both": ("pretrain", "post_train"),
    "pre": ("pretrain",),
    "post": ("post_train",),
}


class Arm(Strict, kw_only=True, frozen=True):
    """One variant of GReF, or of what it is trained on.

    Attributes:
        changes: settings by dotted field, over the recipe of the data's source.
        stages: which are run.
        world: settings of the simulated world that differ from the case's.
        utility, share: as of Case.
    """

    label: str
    changes: dict[str, Any] = msgspec.field(default_factory=dict)
    stages: Stages = "both"
    world: dict[str, Any] = msgspec.field(default_factory=dict)
    utility: Utility = "own"
    share: float = 1.0

    def case(self, base: Case) -> Case:
        """The case with this arm's data.

        Raises:
            ValueError: a world where there is none, or a share of a share.
        """
        if self.share < 1 and base.share < 1:
            raise ValueError(f"case {base.name} is a share already; '{self.label}' takes another")
        named = {"utility": self.utility, "share": self.share, **self.world}
        defaults = {"utility": "own", "share": 1.0}
        parts = [f"{k}={v}" for k, v in named.items() if defaults.get(k) != v]
        if not parts:
            return base
        if self.world and base.world is None:
            raise ValueError(f"case {base.name} is not simulated; an arm cannot change its world")
        world = base.world and msgspec.structs.replace(base.world, **self.world)
        return msgspec.structs.replace(
            base,
            name="+".join([base.name, *parts]),
            world=world,
            utility=self.utility,
            share=self.share if self.share < 1 else base.share,
        )

    def system(self, case: Case) -> Gref:
        """GReF with this arm's settings, untuned: arms differ in what varies and nothing else.

        The same settings have the same name, so that ablations share their trainings, also with
        training/compare.py where that tunes nothing: a change to what the recipe of the case has
        anyway is none.
        """
        stages = "" if self.stages == "both" else f"-{self.stages}"
        recipe = Gref.defaults(case)
        changes = {
            name: value
            for name, value in self.changes.items()
            if override(recipe, {name: value}) != recipe
        }
        # YAML reads what it writes: two ways to write a number are one name.
        text = yaml.safe_dump(changes, default_flow_style=True, width=10_000).strip()
        text = text if changes else ""
        return Gref(f"gref{stages}{text}", self.label, changes, _STAGES[self.stages])


def thinned(case: Case, share: float) -> Case:
    """The case with a share of its train lists, as an arm has it."""
    return Arm(label="", share=share).case(case)


class Ablation(Strict, kw_only=True, frozen=True):
    """A question, and the arms that answer it.

    Attributes:
        cases: on which data.
        metric: that decides; the case's primary one if "".
        scalars: what the arms' last epoch logged, shown beside.
        curve: plot the metric against latency, a line for each value of this world setting.
        reference: label of the arm that the others are paired with (``opposite``).
    """

    name: str
    question: str
    cases: tuple[str, ...]
    arms: tuple[Arm, ...]
    reference: str
    metric: str = ""
    scalars: tuple[str, ...] = ()
    curve: str = ""

    def __post_init__(self) -> None:
        labels = [arm.label for arm in self.arms]
        if len(set(labels)) < len(labels) or self.reference not in labels:
            raise ValueError(
                f"{self.name}: labels must differ, and the reference ({self.reference}) be one"
            )

    def opposite(self, arm: Arm) -> Arm | None:
        """The arm that one is compared with: the reference, or in another world, whose requests
        are others, the arm there that is the reference in all else. None for these themselves."""
        reference = next(one for one in self.arms if one.label == self.reference)
        if arm.world == reference.world:
            return None if arm is reference else reference
        there = msgspec.structs.replace(reference, label=arm.label, world=arm.world)
        alike = (msgspec.structs.replace(one, label=arm.label) for one in self.arms)
        found = next((one for one, same in zip(self.arms, alike) if same == there), None)
        return None if found is arm else found

    def fits(self, case: Case) -> bool:
        """Whether a case can have all arms: real logs, say, have no world to change."""
        try:
            for arm in self.arms:
                arm.case(case)
        except ValueError:
            return False
        return True
