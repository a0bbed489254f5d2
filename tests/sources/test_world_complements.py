"""Complementarity: the exact expectation against a brute force over every outcome of a list."""

from __future__ import annotations

import itertools
import math

import msgspec
import numpy as np
import pytest

from tests.sources.test_world import TINY
from training.sources.world import PRESETS, World

SETTINGS = msgspec.structs.replace(TINY, fatigue=0.5, complementarity=0.8)


@pytest.fixture(scope="module")
def world() -> World:
    return World(SETTINGS)


def click_given(world: World, user: int, items: list[int], place: int) -> float:
    """Click probability of an examined position, item by item from the definition."""
    s = world.settings
    logit = s.scale * float(world.tastes(np.array([user]))[0] @ world.item_latent[items[place]])
    logit += world.quality[items[place]] + s.activity_bias * world.activity[user] + s.bias
    tired, completed = 0.0, False
    for earlier in items[max(0, place - s.fatigue_window) : place]:
        if world.category[earlier] == world.category[items[place]]:
            cosine = float(world.item_latent[earlier] @ world.item_latent[items[place]])
            tired = max(tired, cosine)
        partner = world.completed_by[world.category[earlier]]
        completed = completed or partner == world.category[items[place]]
    w = (1 - s.fatigue * tired) / (1 + math.exp(-logit))
    return w + (s.complementarity * w * (1 - w) if completed else 0.0)


def brute_force(world: World, user: int, items: list[int]) -> float:
    """Expected clicks as the sum over all outcomes: what was looked at, and what was clicked."""
    total = 0.0
    n = len(items)
    for looked in itertools.product((0, 1), repeat=n):
        for clicked in itertools.product((0, 1), repeat=n):
            p = 1.0
            for k in range(n):
                seen = (k + 1) ** -world.settings.position_bias
                p *= seen if looked[k] else 1 - seen
                click = click_given(world, user, items, k) if looked[k] else 0.0
                p *= click if clicked[k] else 1 - click
            total += p * sum(clicked)
    return total


def test_expectation_is_the_sum_over_all_outcomes(world: World) -> None:
    rng = np.random.default_rng(0)
    users = rng.integers(SETTINGS.users, size=12)
    items = np.stack([rng.permutation(SETTINGS.items)[:4] for _ in users])
    assert 0 < world.completion(items).mean() < 1  # else the test would be empty
    found = world.expected("click", users, items).sum(axis=1)
    slow = [brute_force(world, int(user), row.tolist()) for user, row in zip(users, items)]
    np.testing.assert_allclose(found, slow, rtol=1e-9)


def test_feedback_is_drawn_with_that_expectation(world: World) -> None:
    draws = 40_000
    first = 0
    second = int(np.flatnonzero(world.completes(np.zeros(60, np.int64), np.arange(60)))[0])
    items = np.tile([first, second, (second + 1) % 60], (draws, 1))
    users = np.full(draws, 3)
    drawn = world.act(users, items, np.random.default_rng(5))["click"]
    expected = world.expected("click", users[:1], items[:1])[0]
    error = drawn.std(axis=0) / math.sqrt(draws)
    assert (np.abs(drawn.mean(axis=0) - expected) < 4.5 * error).all()


def test_an_item_after_its_complement_is_wanted_more() -> None:
    world = World(msgspec.structs.replace(SETTINGS, fatigue=0.0))
    alone = World(msgspec.structs.replace(SETTINGS, fatigue=0.0, complementarity=0.0))
    rng = np.random.default_rng(1)
    users = rng.integers(SETTINGS.users, size=50)
    items = np.stack([rng.permutation(SETTINGS.items)[:6] for _ in users])
    gain = world.wanted(users, items) - alone.wanted(users, items)
    completed = world.completion(items) > 0
    assert (gain[completed] > 0).all()
    assert (gain[~completed] == 0).all()
    assert (world.wanted(users, items) < 1).all()


def test_greedy_oracle_knows_complements(world: World) -> None:
    requests = world.draw(20, np.random.default_rng(9))
    found = world.greedy_oracle(requests.users, requests.candidates, 5)
    for user, candidates, order in zip(requests.users, requests.candidates, found):
        chosen: list[int] = []
        for best in order:
            rest = [index for index in range(SETTINGS.candidates) if index not in chosen]
            values = {
                index: click_given(
                    world, int(user), [int(candidates[i]) for i in [*chosen, index]], len(chosen)
                )
                for index in rest
            }
            assert values[int(best)] == pytest.approx(max(values.values()))
            chosen.append(int(best))


def test_worlds_without_list_effects_reward_every_order_alike() -> None:
    """In ``plain`` the order of a list changes nothing; in ``position`` only its weights do."""
    for name in ("plain", "position"):
        world = World(PRESETS[name])
        requests = world.draw(20, np.random.default_rng(2))
        items = requests.candidates[:, :6]
        turned = items[:, ::-1]
        both = world.wanted(requests.users, items), world.wanted(requests.users, turned)
        np.testing.assert_allclose(both[0], both[1][:, ::-1])
        same = np.isclose(
            world.expected("click", requests.users, items).sum(axis=1),
            world.expected("click", requests.users, turned).sum(axis=1),
        )
        assert same.all() == (name == "plain")
