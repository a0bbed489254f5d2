"""What a stretch of traffic came to, with the truth about the lists that were shown. Simulated."""

from __future__ import annotations

from collections import Counter, defaultdict

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.events import Exposure
from contracts.reading import Strict
from handlers.rerank_result import RerankResult
from streaming.traffic.users import Visit

Floats = npt.NDArray[np.float64]


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


class ArmTotal(Strict, kw_only=True, frozen=True):
    """One arm: its requests and their means of true expected clicks (simulated, exact).

    Attributes:
        users: distinct ones.
        given, shown: of the given order, and of the lists that were shown.
        gain_half: half the 95 % interval of their difference, over requests.
    """

    requests: int
    users: int
    given: float
    shown: float
    gain_half: float


class TrafficSummary(Strict, kw_only=True, frozen=True):
    """A stretch of traffic. ``true_*`` are exact expectations of the simulated world.

    Attributes:
        releases: requests by the release that answered or was asked.
        fallbacks: requests that got the given order, by reason.
        feedback: acts that the users reported, by kind.
        sent: messages by fate (``streaming/traffic/faults.py``). lost: exposures not sent at all.
        true_given, true_shown: mean expected clicks of the given order and of the lists shown;
            gain: their mean difference, and half its 95 % interval.
        p50_ms, p99_ms: of a call as the client saw it.
        stretches: the same over time.
        arms: the same by the exposures' ``arm``, those that were lost included.
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
    lost: int = 0
    arms: dict[str, ArmTotal] = msgspec.field(default_factory=dict)


class Tally:
    """Adds up a stretch of traffic."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, float, float, float, float]] = []
        self._arms: list[str] = []
        self._users: dict[str, set[str]] = defaultdict(set)
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
        self._arms.append(exposure.arm)
        self._users[exposure.arm].add(exposure.user)
        self._releases[exposure.release or "none"] += 1
        if exposure.fallback:
            self._fallbacks[exposure.fallback] += 1
        self._feedback.update(kinds)

    def summary(
        self, seconds: float, sent: Counter[str], lost: int = 0, stretches: int = 20
    ) -> TrafficSummary:
        """All of it; raises ValueError where there was no request."""
        if not self._rows:
            raise ValueError("no request was made")
        rows = np.array(self._rows, np.float64)
        gain = rows[:, 3] - rows[:, 2]
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
            gain_half=_half(gain),
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
            lost=lost,
            arms={arm: self._arm(arm, rows) for arm in sorted(self._users)},
        )

    def _arm(self, arm: str, rows: Floats) -> ArmTotal:
        own = rows[np.array(self._arms) == arm]
        return ArmTotal(
            requests=len(own),
            users=len(self._users[arm]),
            given=float(own[:, 2].mean()),
            shown=float(own[:, 3].mean()),
            gain_half=_half(own[:, 3] - own[:, 2]),
        )


def _half(values: Floats) -> float:
    """Half the 95 % interval of a mean."""
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return float(1.96 * spread / len(values) ** 0.5)
