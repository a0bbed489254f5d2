"""What a stretch of traffic came to, with the truth about the lists that were shown. Simulated."""

from __future__ import annotations

from collections import Counter

import numpy as np

from contracts.events import Exposure
from contracts.reading import Strict
from handlers.rerank_result import RerankResult
from streaming.traffic.users import Visit


class Stretch(Strict, kw_only=True, frozen=True):
    """A row of requests, one after the other: means of true expected clicks (simulated, exact).

    Attributes:
        time: event time in ms of its first request. drift: of the world, mean.
        given, shown: of the given order, and of the lists that were shown.
    """

    time: int
    drift: float
    requests: int
    given: float
    shown: float


class TrafficSummary(Strict, kw_only=True, frozen=True):
    """A stretch of traffic. ``true_*`` are exact expectations of the simulated world.

    Attributes:
        releases: requests by the release that answered or was asked.
        fallbacks: requests that got the given order, by reason.
        feedback: acts that the users reported, by kind.
        sent: messages by fate (``streaming/traffic/faults.py``).
        true_given, true_shown: mean expected clicks of the given order and of the lists shown;
            gain: their mean difference, and half its 95 % interval.
        p50_ms, p99_ms: of a call as the client saw it.
        stretches: the same over time.
    """

    requests: int
    seconds: float
    releases: dict[str, int]
    fallbacks: dict[str, int]
    feedback: dict[str, int]
    sent: dict[str, int]
    true_given: float
    true_shown: float
    gain: float
    gain_half: float
    p50_ms: float
    p99_ms: float
    stretches: tuple[Stretch, ...]


class Tally:
    """Adds up a stretch of traffic."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, float, float, float, float]] = []
        self._releases: Counter[str] = Counter()
        self._fallbacks: Counter[str] = Counter()
        self._feedback: Counter[str] = Counter()

    def add(self, visit: Visit, result: RerankResult, exposure: Exposure, kinds: list[str]) -> None:
        """One visit: what was shown, and the kinds of the acts that were reported."""
        given = range(len(exposure.exposed))
        self._rows.append(
            (
                exposure.time,
                visit.world.settings.drift,
                visit.true_clicks(list(given)),
                visit.true_clicks(exposure.exposed),
                result.latency_ms,
            )
        )
        self._releases[exposure.release or "none"] += 1
        if exposure.fallback:
            self._fallbacks[exposure.fallback] += 1
        self._feedback.update(kinds)

    def summary(self, seconds: float, sent: Counter[str], stretches: int = 20) -> TrafficSummary:
        """All of it; raises ValueError where there was no request."""
        if not self._rows:
            raise ValueError("no request was made")
        rows = np.array(self._rows, np.float64)
        gain = rows[:, 3] - rows[:, 2]
        spread = float(gain.std(ddof=1)) if len(gain) > 1 else 0.0
        return TrafficSummary(
            requests=len(rows),
            seconds=seconds,
            releases=dict(self._releases),
            fallbacks=dict(self._fallbacks),
            feedback=dict(self._feedback),
            sent=dict(sent),
            true_given=float(rows[:, 2].mean()),
            true_shown=float(rows[:, 3].mean()),
            gain=float(gain.mean()),
            gain_half=1.96 * spread / len(gain) ** 0.5,
            p50_ms=float(np.percentile(rows[:, 4], 50)),
            p99_ms=float(np.percentile(rows[:, 4], 99)),
            stretches=tuple(
                Stretch(
                    time=int(part[0, 0]),
                    drift=float(part[:, 1].mean()),
                    requests=len(part),
                    given=float(part[:, 2].mean()),
                    shown=float(part[:, 3].mean()),
                )
                for part in np.array_split(rows, min(stretches, len(rows)))
            ),
        )
