"""What an arm gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from training.ablations.ablation import Arm
from training.comparison.pairing import Drawn
from training.comparison.store import Row
from training.evaluation.bootstrap import Interval


@dataclass(frozen=True)
class Found:
    """What an arm gave on a case; ``over`` is paired with the reference's, over one and the same
    test lists, or None. ``stale``: of an earlier state of the code or of the slates."""

    arm: Arm
    rows: list[Row]
    drawn: Drawn
    over: Interval | None
    exposed: Row | None
    stale: bool = False

    @property
    def stayed(self) -> bool:
        """Whether every training ended as its last stage began: by an alarm, or by the judge."""
        return all(row.epoch == 0 for row in self.rows)


def over_given(rows: Sequence[Row], metric: str) -> list[float]:
    """What each row has over the given order, where that is known."""
    gains = [row.metrics[metric].over_given for row in rows if metric in row.metrics]
    return [gain[0] for gain in gains if gain is not None]
