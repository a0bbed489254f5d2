"""An off-policy estimate with all that one needs to know before believing it."""

from __future__ import annotations

import math
from typing import Literal

from contracts.reading import Strict

#: What the reward at a position depends on (docs/off_policy.md).
Assumption = Literal["cascade", "item_position"]
Estimator = Literal["snips", "dr"]


class OffPolicySettings(Strict, kw_only=True, frozen=True):
    """How to estimate, and when to refuse.

    Attributes:
        clip: largest weight; larger ones are cut to it, which biases. None cuts none.
        max_clipped_share: refuse where a larger share of the weights was cut.
        min_effective_sample_size: refuse where the weighted slates of some position are worth
            fewer than so many slates of the policy itself.
        level: of the intervals.
        draws: lists drawn of a policy for each slate, for expectations that no sum gives exactly;
            0 leaves out the item-position assumption.
        seed: of those draws, and of the fitting of evaluators.
        batch_size: slates computed at once.
    """

    clip: float | None = 100.0
    max_clipped_share: float = 0.01
    min_effective_sample_size: float = 100.0
    level: float = 0.95
    draws: int = 8
    seed: int = 0
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.clip is not None and not self.clip >= 1:
            raise ValueError(f"clip is {self.clip}; allowed: 1 or more, or null for no clipping")
        if not 0 < self.level < 1:
            raise ValueError(f"level is {self.level}; allowed: above 0 and below 1")
        if not 0 <= self.max_clipped_share <= 1:
            raise ValueError(f"max_clipped_share is {self.max_clipped_share}; allowed: 0 to 1")
        least = self.min_effective_sample_size
        if not 1 <= least < math.inf:
            raise ValueError(f"min_effective_sample_size is {least}; allowed: 1 or more, finite")
        if not 0 <= self.draws < 64:
            raise ValueError(f"draws is {self.draws}; allowed: 0 to 63")
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}; allowed: 1 or more")


class OffPolicyEstimate(Strict, kw_only=True, frozen=True):
    """What a policy earns a list (sum over positions), or how much more than another.

    Attributes:
        policy: whose value it is, such as "candidate", or "candidate - champion".
        value, low, high: the estimate and its interval; None where nothing could be computed.
        level: of the interval.
        slates, users: what the estimate was made from.
        explored_share: share of the logged slates that they are; the others were logged greedily,
            were fallbacks or have no propensities.
        effective_sample_size: the least over positions, and of both policies of a difference.
        effective_sample_sizes: of each position.
        mean_weight: of the first position, about 1 where the logged propensities are right.
        clipped_share: share of the weights that were cut.
        usable: whether a decision may rest on it. Where not, ``why`` says why; value and interval
            may still be there for the eye.
    """

    policy: str
    estimator: Estimator
    assumption: Assumption
    value: float | None = None
    low: float | None = None
    high: float | None = None
    level: float
    slates: int = 0
    users: int = 0
    explored_share: float = 0.0
    effective_sample_size: float = 0.0
    effective_sample_sizes: tuple[float, ...] = ()
    mean_weight: float | None = None
    clipped_share: float = 0.0
    usable: bool
    why: str = ""
