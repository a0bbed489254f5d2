"""The simulator as a data source: requests to a world, production's lists, and users' feedback."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from contracts.datasets import SplitTimes
from contracts.features import Categorical, Dense, FeatureGroup, FeatureSpec, FeedbackKind
from contracts.reading import Strict, stable_hash
from contracts.releases import settings_of
from contracts.slates import Feedback, Slate
from training.sources.base import Tally
from training.sources.world import KINDS, World, WorldSettings
from training.sources.world_requests import candidates, user_features

START_MS = 1_735_689_600_000  # 2025-01-01 00:00 UTC, the first simulated request
DAY_MS = 86_400_000
CHUNK = 512
_MEASURED = 4000  # requests on which the headroom of the world is measured


class SimulatorSettings(Strict, kw_only=True, frozen=True):
    """Settings of a simulated dataset.

    Attributes:
        world: the world.
        lists: number of requests, spread evenly over the world's days.
        seed: draws requests, lists and feedback; the world has its own.
        valid_part, test_part: the parts of time at the end that are held out.
    """

    world: WorldSettings
    lists: int = 20_000
    seed: int = 1
    valid_part: float = 0.1
    test_part: float = 0.1

    def __post_init__(self) -> None:
        if self.lists < 1:
            raise ValueError(f"lists is {self.lists}; allowed: at least 1")
        parts = self.valid_part, self.test_part
        if not (min(parts) >= 0 and sum(parts) < 1):
            raise ValueError("valid_part and test_part must be 0 or more and leave room to train")


def world_spec(world: WorldSettings) -> FeatureSpec:
    """The draft feature spec of a world: what a ranking server would see of it."""
    return FeatureSpec(
        user=FeatureGroup(
            categorical=(
                Categorical(name="user", buckets=4 * world.users, width=16),
                Categorical(name="segment", vocabulary=(), width=8),
            ),
            dense=(Dense(name="activity"),),
        ),
        item=FeatureGroup(
            categorical=(
                Categorical(name="item", buckets=8 * world.items, width=16),
                Categorical(name="category", vocabulary=(), width=16),
            ),
            dense=(
                Dense(name="score"),
                Dense(name="quality"),
                Dense(name="duration", transform="log1p"),
            ),
        ),
        list_size=world.list_size,
        feedback=tuple(
            FeedbackKind(kind=kind, type="binary" if binary else "continuous")
            for kind, binary in KINDS.items()
        ),
        utility="click",
    )


class Simulator:
    """Simulated slates; ``world`` computes the truth about them from their ids alone."""

    name = "simulator"

    def __init__(self, settings: SimulatorSettings) -> None:
        self._settings = settings
        self.world = World(settings.world)
        self.spec = world_spec(settings.world)
        span = settings.world.days * DAY_MS
        self.split_times = SplitTimes(
            valid_from=START_MS + int(span * (1 - settings.valid_part - settings.test_part)),
            test_from=START_MS + int(span * (1 - settings.test_part)),
        )

    def settings(self) -> dict[str, Any]:
        return settings_of(self._settings)

    def fingerprint(self) -> str:
        return stable_hash(self._settings)

    def expected_lists(self) -> int:
        return self._settings.lists

    def slates(self, tally: Tally) -> Iterator[Slate]:
        """Requests in the order of time; each chunk has its own stream of random numbers."""
        for chunk, first in enumerate(range(0, self._settings.lists, CHUNK)):
            rng = np.random.default_rng([self._settings.seed, chunk])
            count = min(CHUNK, self._settings.lists - first)
            yield from self._chunk(first, count, rng)
            tally.keep("lists", count)
            tally.keep("exposures", count * self._settings.world.list_size)
        tally.facts.update(headroom(self.world, self._settings.seed))

    def _chunk(self, first: int, count: int, rng: np.random.Generator) -> Iterator[Slate]:
        world = self.world
        requests = world.draw(count, rng)
        shown, log_prob = world.show(requests, rng)
        items = np.take_along_axis(requests.candidates, shown, axis=1)
        acts = world.act(requests.users, items, rng)
        step = world.settings.days * DAY_MS / self._settings.lists
        for row in range(count):
            index = first + row
            time = START_MS + int(index * step)
            yield Slate(
                request_id=f"s{self._settings.seed}-{index}",
                user=world.user_id(int(requests.users[row])),
                time=time,
                surface="simulator",
                release="production",
                candidates=candidates(world, requests.candidates[row], requests.scores[row]),
                exposed=tuple(shown[row].tolist()),
                log_prob=tuple(log_prob[row].tolist()),
                temperature=world.settings.logging_temperature,
                seed=self._settings.seed,
                user_features=user_features(world, int(requests.users[row])),
                feedback=tuple(
                    Feedback(
                        position=int(position),
                        kind=kind,
                        value=float(values[row, position]),
                        time=time + 1000 * (int(position) + 1),
                    )
                    for kind, values in acts.items()
                    for position in np.flatnonzero(values[row])
                ),
            )


def headroom(world: World, seed: int = 1, requests: int = _MEASURED) -> dict[str, float]:
    """True expected clicks of four orders on fresh requests: what there is to be won.

    Returns:
        ``given``, ``production``, ``relevance`` (sorted by true attractiveness, blind to fatigue)
        and ``greedy_oracle``, as expected clicks of the list, under names that say "true".
    """
    rng = np.random.default_rng([seed, 1 << 40])
    drawn = world.draw(requests, rng)
    size = world.settings.list_size
    attractive = world.attractiveness(drawn.users, drawn.candidates)
    orders = {
        "given": np.tile(np.arange(size), (requests, 1)),
        "production": world.show(drawn, rng)[0],
        "relevance": np.argsort(-attractive, axis=1, kind="stable")[:, :size],
        "greedy_oracle": world.greedy_oracle(drawn.users, drawn.candidates, size),
    }
    return {
        f"true_clicks/{name}": float(
            world.expected("click", drawn.users, np.take_along_axis(drawn.candidates, order, 1))
            .sum(axis=1)
            .mean()
        )
        for name, order in orders.items()
    }
