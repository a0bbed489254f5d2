"""Users of the simulated world over days: what each list earns in either arm, drawn once.

Every list has two outcomes, one if its user is in the control and one if not (Rubin's potential
outcomes), so the true effect is known exactly. Every repeat draws users from these, with
replacement: the population is the one that they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from training.sources.world import PRESETS, Requests, World

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

HOUR_MS = 3_600_000
DAY_H = 24
#: Requests that are drawn at once.
_CHUNK = 2048


@dataclass(frozen=True)
class Population:
    """U users at K looks. All sums are up to the end of each look's hour.

    Attributes:
        names: of the users, as slates carry them.
        lists: shown so far [U, K]. earned: feedback so far in the control and in the arm
            [2, U, K]. past_lists, past: of the days before the start [U].
    """

    names: tuple[str, ...]
    lists: Floats
    earned: Floats
    past_lists: Floats
    past: Floats

    def drawn(self, rows: Ints, prefix: str) -> Population:
        """Users drawn from these, with replacement: a new sample of those whom they stand for."""
        return Population(
            names=tuple(f"{prefix}-{number}" for number in range(len(rows))),
            lists=self.lists[rows],
            earned=self.earned[:, rows],
            past_lists=self.past_lists[rows],
            past=self.past[rows],
        )

    @property
    def true_lift(self) -> Floats:
        """Relative lift, were everybody in the arm instead of in the control, by look [K]."""
        control, arm = self.earned.sum(axis=1)
        return np.asarray(arm / np.maximum(control, 1e-12) - 1)


def simulate(
    *,
    preset: str = "noisy",
    kind: str = "click",
    users: int = 2000,
    lists: int = 20_000,
    days: int = 7,
    past_days: int = 0,
    better_share: float = 0.0,
    seed: int = 0,
) -> Population:
    """Draw a population.

    Args:
        kind: of feedback. lists: in the days of the experiment; the past has as many a day.
        better_share: of the arm's lists, those in the true best order instead of production's; 0
            is an A/A test, where both outcomes are the same.
    """
    world = World(msgspec.structs.replace(PRESETS[preset], users=users, seed=seed))
    rng = np.random.default_rng([seed, 17])
    count = lists + lists * past_days // days
    hours = np.sort(_hours(rng, count, days + past_days)) - past_days * DAY_H
    who, control, arm = _draw(world, kind, count, better_share, rng)
    during = hours >= 0
    looks = days * DAY_H
    cell = who[during] * looks + hours[during].astype(np.int64)

    def by_look(values: Floats) -> Floats:
        sums = np.bincount(cell, values, minlength=users * looks).reshape(users, looks)
        return np.asarray(sums.cumsum(axis=1))

    ones = np.ones(int(during.sum()))
    return Population(
        names=tuple(world.user_id(user) for user in range(users)),
        lists=by_look(ones),
        earned=np.stack([by_look(control[during]), by_look(arm[during])]),
        past_lists=np.bincount(who[~during], minlength=users).astype(np.float64),
        past=np.bincount(who[~during], control[~during], minlength=users).astype(np.float64),
    )


def _hours(rng: np.random.Generator, count: int, days: int) -> Floats:
    """Times of requests in hours: busy evenings, quiet nights."""
    day = rng.integers(0, days, count)
    clock = np.arange(DAY_H)
    busy = 1 + 0.9 * np.sin((clock - 13) / DAY_H * 2 * np.pi)
    return np.asarray(day * DAY_H + rng.choice(clock, count, p=busy / busy.sum()) + 0.5)


def _draw(
    world: World, kind: str, count: int, better_share: float, rng: np.random.Generator
) -> tuple[Ints, Floats, Floats]:
    """Users [L], and what each list earns in the control and in the arm [L]."""
    users, earned = [], []
    for first in range(0, count, _CHUNK):
        size = min(_CHUNK, count - first)
        requests = world.draw(size, rng)
        shown, _ = world.show(requests, rng)
        control = _earn(world, kind, requests, shown, rng)
        arm = control
        if better_share:
            best = world.greedy_oracle(
                requests.users, requests.candidates, world.settings.list_size
            )
            better = _earn(world, kind, requests, best, rng)
            arm = np.where(rng.random(size) < better_share, better, control)
        users.append(requests.users)
        earned.append(np.stack([control, arm]))
    both = np.concatenate(earned, axis=1)
    return np.concatenate(users), both[0], both[1]


def _earn(
    world: World, kind: str, requests: Requests, order: Ints, rng: np.random.Generator
) -> Floats:
    items = np.take_along_axis(requests.candidates, order, axis=1)
    total: Floats = world.act(requests.users, items, rng)[kind].sum(axis=1)
    return total
