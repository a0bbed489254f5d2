"""What an arm gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from contracts.multiplicity import holm
from training.ablations.ablation import Arm
from training.comparison.lines import LEVEL
from training.comparison.pairing import Drawn
from training.comparison.store import Row
from training.evaluation.bootstrap import Interval


@dataclass(frozen=True)
class Found:
    """What an arm gave on a case.

    Attributes:
        over: minus what ``Ablation.opposite`` gave, paired over the same test lists, or None.
        p: of that, two-sided, corrected for the number of the case's arms (Holm); of trainings
            that nobody knows the spread of, 1.
        stale: of an earlier state of the code, of the slates, or of the recipe.
        opposite_seeds: how often that was trained.
    """

    arm: Arm
    rows: list[Row]
    drawn: Drawn
    over: Interval | None
    exposed: Row | None
    stale: bool = False
    opposite_seeds: int = 0
    p: float = 1.0

    @property
    def once(self) -> bool:
        """Whether both sides of the comparison were trained once: nobody knows how they vary."""
        return max(len(self.rows), self.opposite_seeds) == 1

    @property
    def differs(self) -> bool:
        """Whether its difference is called one."""
        return self.over is not None and self.p < LEVEL and not self.once and not self.stayed

    @property
    def stayed(self) -> bool:
        """Whether every training ended as its last stage began: by an alarm, or by the judge."""
        return all(row.epoch == 0 for row in self.rows)


def corrected(found: Sequence[Found]) -> list[Found]:
    """The arms of a case, with p corrected for the number of those that are compared."""
    compared = {one.arm.label: one.p for one in found if one.over and not one.once}
    p = dict(zip(compared, holm(list(compared.values()))))
    return [replace(one, p=p.get(one.arm.label, 1.0)) for one in found]


def over_given(rows: Sequence[Row], metric: str) -> list[float]:
    """What each row has over the given order, where that is known."""
    gains = [row.metrics[metric].over_given for row in rows if metric in row.metrics]
    return [gain[0] for gain in gains if gain is not None]
