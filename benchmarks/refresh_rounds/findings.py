"""What ten refreshes did, in true expected clicks. Simulated: only a world can tell."""

from __future__ import annotations

from typing import Literal, Optional

import numpy as np
import numpy.typing as npt

from contracts.reading import Strict

Floats = npt.NDArray[np.float64]

_RESAMPLES = 2000


class Interval(Strict, kw_only=True, frozen=True):
    """A mean over requests with its 95 % interval."""

    estimate: float
    low: float
    high: float


class Round(Strict, kw_only=True, frozen=True):
    """One refresh, judged on fresh requests of the world as it is at the round's end.

    Attributes:
        drift: of that world. exit_code: of training/refresh.py: 0 published, 3 refused.
        champion: the release after it. refusal: the gates that said no.
        given: true clicks of the given order. frozen, refreshed: gains over it of the release
            that the rounds began with, and of the champion. difference: refreshed - frozen.
        reference_drift: mean KL(champion || anchor), nats a list.
        explored: gain over the given order of the lists that the champion before the refresh
            showed in this round, drawn with the exploration temperature.
    """

    number: int
    drift: float
    exit_code: int
    champion: str
    refusal: str
    slates: int
    seconds: float
    given: float
    frozen: Interval
    refreshed: Interval
    difference: Interval
    reference_drift: float
    explored: Interval


class Recovery(Strict, kw_only=True, frozen=True):
    """How much of what the frozen champion loses in a new world the refreshes won back.

    loss = gain of the frozen champion over the given order in the old world, minus the same in
    the new one. won_back = true clicks of the refreshed champion minus the frozen one, on the same
    requests of the new world. share = won_back / loss. ``fresh`` is a policy trained in the new
    world alone, by the recipe and from as many slates as the frozen one was in the old:
    share_of_fresh = won_back / (fresh - frozen).
    """

    loss: Interval
    won_back: Interval
    share: Interval
    fresh_minus_frozen: Optional[Interval] = None
    share_of_fresh: Optional[Interval] = None


class Findings(Strict, kw_only=True, frozen=True):
    """All of a run; every number of clicks is simulated, exact for each list, and a mean over
    requests."""

    traffic: Literal["stationary", "drifting"]
    world: str
    lists: int
    temperature: float
    rounds: tuple[Round, ...]
    recovery: Optional[Recovery] = None


def mean_interval(values: Floats) -> Interval:
    """Mean of values [S] with its normal interval."""
    half = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5
    mean = float(values.mean())
    return Interval(estimate=mean, low=mean - half, high=mean + half)


def recovery(
    frozen_gain_before: Floats,
    frozen_gain: Floats,
    refreshed_gain: Floats,
    fresh_gain: Floats | None = None,
    seed: int = 0,
) -> Recovery:
    """Loss and what was won back, from gains over the given order of single requests.

    Args:
        frozen_gain_before: [S] on requests of the old world.
        frozen_gain, refreshed_gain, fresh_gain: [T], all on the same requests of the new world.
    """
    rng = np.random.default_rng(seed)
    won = refreshed_gain - frozen_gain
    ahead = None if fresh_gain is None else fresh_gain - frozen_gain
    loss, shares, of_fresh = [], [], []
    for _ in range(_RESAMPLES):  # ratios of means: by bootstrap over requests
        old = rng.integers(len(frozen_gain_before), size=len(frozen_gain_before))
        new = rng.integers(len(frozen_gain), size=len(frozen_gain))
        loss.append(frozen_gain_before[old].mean() - frozen_gain[new].mean())
        shares.append(won[new].mean() / loss[-1])
        if ahead is not None:
            of_fresh.append(won[new].mean() / ahead[new].mean())
    lost = float(frozen_gain_before.mean() - frozen_gain.mean())
    return Recovery(
        loss=_percentiles(lost, loss),
        won_back=mean_interval(won),
        share=_percentiles(float(won.mean()) / lost, shares),
        fresh_minus_frozen=None if ahead is None else mean_interval(ahead),
        share_of_fresh=None
        if ahead is None
        else _percentiles(float(won.mean() / ahead.mean()), of_fresh),
    )


def _percentiles(estimate: float, draws: list[float]) -> Interval:
    low, high = np.percentile(draws, [2.5, 97.5])
    return Interval(estimate=estimate, low=float(low), high=float(high))
