"""Users of a simulated world: they ask, they are shown a list, they act; the truth is known.

A user's acts depend on the traffic's seed, the number of the request and the list alone, so the
same traffic can be sent twice, to two releases.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from contracts.events import Exposure, FeedbackEvent
from contracts.slates import RerankRequest
from streaming.traffic.poison import Poison, poisoned
from training.sources.world import Requests, World
from training.sources.world_requests import rerank_request

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

#: Requests that are drawn at once, of one moment of the world.
CHUNK = 128
#: A user looks at a position for so long.
MS_PER_POSITION = 1000


@dataclass(frozen=True)
class Visit:
    """One request of one user, and the world as it was then.

    Attributes:
        index: number of the request in its traffic, from 0.
    """

    index: int
    request: RerankRequest
    world: World
    user: int
    candidates: Ints

    def true_clicks(self, order: Sequence[int]) -> float:
        """Exact expected clicks of a list of indices into the candidates."""
        return float(self.world.expected("click", np.array([self.user]), self._items(order)).sum())

    def _items(self, order: Sequence[int]) -> Ints:
        return self.candidates[np.asarray(order, np.int64)][None]


class Users:
    """The visits of a stretch of traffic, and what the users do."""

    def __init__(
        self,
        world: World,
        *,
        seed: int = 0,
        drift: tuple[float, float] | None = None,
        poison: Poison | None = None,
    ) -> None:
        """Describe the traffic.

        Args:
            drift: of the world at the first request and at the last; without it the world's own.
            poison: makes what the users report untrue.
        """
        self._world = world
        self._seed = seed
        self._drift = drift
        self._poison = poison

    def visits(self, count: int) -> Iterator[Visit]:
        """``count`` visits in order; tastes move a little with every chunk of them."""
        for chunk, first in enumerate(range(0, count, CHUNK)):
            size = min(CHUNK, count - first)
            world = self._at((first + size / 2) / count)
            drawn = world.draw(size, np.random.default_rng([self._seed, 1, chunk]))
            for row in range(size):
                yield self._visit(world, drawn, row, first + row)

    def act(self, visit: Visit, exposure: Exposure) -> list[FeedbackEvent]:
        """What the user does with the list, in the order of time."""
        rng = np.random.default_rng([self._seed, 2, visit.index])
        items = visit.candidates[list(exposure.exposed)][None]
        acts = {
            kind: v[0] for kind, v in visit.world.act(np.array([visit.user]), items, rng).items()
        }
        if self._poison is not None:
            acts = poisoned(acts, self._poison, rng)
        events = [
            FeedbackEvent(
                event_id=f"{exposure.request_id}/{position}/{kind}",
                request_id=exposure.request_id,
                item=exposure.candidates[exposure.exposed[position]].item,
                kind=kind,
                value=float(values[position]),
                time=exposure.time + MS_PER_POSITION * (int(position) + 1),
            )
            for kind, values in acts.items()
            for position in np.flatnonzero(values)
        ]
        return sorted(events, key=lambda event: event.time)

    def _at(self, progress: float) -> World:
        if self._drift is None:
            return self._world
        first, last = self._drift
        return self._world.at(first + (last - first) * progress)

    def _visit(self, world: World, drawn: Requests, row: int, index: int) -> Visit:
        return Visit(
            index=index,
            request=rerank_request(world, drawn, row, f"t{self._seed}-{index}"),
            world=world,
            user=int(drawn.users[row]),
            candidates=drawn.candidates[row],
        )
