"""The ranking server of the simulated world: it asks the real client, and explores as told.

Or it follows a routing, as a production server does: then that says whom to ask, and how.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from contracts.events import Exposure
from contracts.reading import Strict
from handlers.client import RerankClient
from handlers.rerank_result import RerankResult
from handlers.routed_client import RoutedClient
from streaming.traffic.users import Visit


class Exploration(Strict, kw_only=True, frozen=True):
    """How lists are drawn.

    Attributes:
        temperature: of explored lists; 0 is greedy, and then no log can tell what another policy
            would have got.
        share: of requests that are explored; the rest is greedy.
    """

    temperature: float = 0.0
    share: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature}; allowed: 0 or more, and finite")
        if not 0 <= self.share <= 1:
            raise ValueError(f"share is {self.share}; allowed: 0 to 1")


class RankingServer:
    """Asks a served release for lists; every list that is shown makes an exposure."""

    def __init__(
        self,
        url: str,
        release: str | None = None,
        exploration: Exploration | None = None,
        *,
        seed: int = 0,
        routing: Path | None = None,
        **client: Any,
    ) -> None:
        """Make it; nothing is sent yet.

        Args:
            release: the release to ask; without it the newest that is ready.
            routing: routing file, in place of release and exploration.
            client: further options of ``RerankClient``.
        """
        self._exploration = exploration or Exploration()
        self._seed = seed
        self._made: list[Exposure] = []
        self.client: RerankClient | RoutedClient
        if routing is None:
            self.client = RerankClient(url, release, exposures=self._made.append, **client)
        else:
            self.client = RoutedClient(url, routing, exposures=self._made.append, **client)

    def show(
        self, visits: Sequence[Visit], times: Sequence[int]
    ) -> list[tuple[RerankResult, Exposure]]:
        """The list of each visit and its exposure, as shown at the given time (ms).

        Visits of one call that are explored, and those that are not, share a call of the client.
        """
        if isinstance(self.client, RoutedClient):
            self._made.clear()
            results = self.client.rerank_many([visit.request for visit in visits])
            return self._dated(results, times)
        draws = [np.random.default_rng([self._seed, 3, visit.index]) for visit in visits]
        heats = [
            self._exploration.temperature if rng.random() < self._exploration.share else 0.0
            for rng in draws
        ]
        seeds = [int(rng.integers(1 << 62)) for rng in draws]
        shown: dict[int, tuple[RerankResult, Exposure]] = {}
        for heat in sorted(set(heats)):
            rows = [row for row, own in enumerate(heats) if own == heat]
            self._made.clear()
            results = self.client.rerank_many(
                [visits[row].request for row in rows],
                temperature=heat,
                seeds=[seeds[row] for row in rows],
            )
            shown.update(zip(rows, self._dated(results, [times[row] for row in rows])))
        return [shown[row] for row in range(len(visits))]

    def _dated(
        self, results: Sequence[RerankResult], times: Sequence[int]
    ) -> list[tuple[RerankResult, Exposure]]:
        """Results with their exposures at the traffic's time, which may run faster than ours."""
        made = {exposure.request_id: exposure for exposure in self._made}
        return [
            (result, msgspec.structs.replace(made[result.request_id], time=time))
            for result, time in zip(results, times)
        ]

    def close(self) -> None:
        self.client.close()
