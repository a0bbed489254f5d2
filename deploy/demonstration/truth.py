"""Two served releases on the same fresh requests, judged by the truth of the simulated world."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
from rich.progress import track

from handlers.client import RerankClient
from streaming.traffic.users import Users
from training.sources.world import World

Floats = npt.NDArray[np.float64]

#: Of the requests that judge: traffic has others.
JUDGE_SEED = 1_000_003
_CALL = 16


@dataclass(frozen=True)
class Judged:
    """True expected clicks of a release's greedy lists on fresh requests; simulated, exact.

    Attributes:
        given, clicks: of the given order and of the release's lists, [S].
        fallbacks: how many of them were the given order for want of an answer.
    """

    given: Floats
    clicks: Floats
    fallbacks: int

    @property
    def gain(self) -> tuple[float, float]:
        """Mean over the given order, and half its 95 % interval."""
        return mean_and_half(self.clicks - self.given)


def judge(url: str, release: str, world: World, count: int) -> Judged:
    """Ask a served release for the lists of ``count`` requests: the same for every release."""
    visits = Users(world, seed=JUDGE_SEED).visits(count)
    given, clicks, fallbacks = [], [], 0
    with RerankClient(url, release, deadline_ms=5000.0) as client:
        steps = range(0, count, _CALL)
        for _ in track(steps, f"{release} on fresh requests", transient=True):
            taken = list(islice(visits, _CALL))
            results = client.rerank_many([visit.request for visit in taken])
            for visit, result in zip(taken, results):
                given.append(visit.true_clicks(range(len(result.indices))))
                clicks.append(visit.true_clicks(result.indices))
                fallbacks += result.fallback is not None
    return Judged(given=np.array(given), clicks=np.array(clicks), fallbacks=fallbacks)


def mean_and_half(values: Floats) -> tuple[float, float]:
    """A mean and half its 95 % interval."""
    return float(values.mean()), 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5
