"""Tastes that move: without drift nothing changes; with it the truth and what is drawn follow."""

from __future__ import annotations

import itertools

import msgspec
import numpy as np
import pytest

from tests.sources.test_world import TINY, slow_click
from training.sources.base import Tally
from training.sources.simulator import Simulator, SimulatorSettings
from training.sources.world import PRESETS, World, WorldSettings
from training.sources.world_tastes import unit


def everything(world: World) -> tuple[np.ndarray, ...]:
    requests = world.draw(50, np.random.default_rng(1))
    acts = world.act(requests.users, requests.candidates[:, :10], np.random.default_rng(3))
    return (
        world.item_latent,
        world.quality,
        world.observed_quality,
        world.duration,
        world.segment,
        world.tastes(np.arange(world.settings.users)),
        world.activity,
        requests.users,
        requests.candidates,
        requests.scores,
        *world.show(requests, np.random.default_rng(2)),
        acts["watch_time"],
    )


def tastes_before_drift_was_thought_of(world: World) -> tuple[np.ndarray, ...]:
    """Segments, activity and tastes as worlds drew them before they could drift."""
    s = world.settings
    rng = np.random.default_rng([s.seed, 0])
    centres = unit(rng.normal(size=(s.categories, s.latent)))
    rng = np.random.default_rng([s.seed, 1])
    likes = rng.dirichlet(np.full(s.categories, 3 / s.categories), size=s.segments)
    segments = unit(likes @ centres + 1e-6 * rng.normal(size=(s.segments, s.latent)))
    segment = rng.integers(s.segments, size=s.users)
    own = unit(rng.normal(size=(s.users, s.latent)))
    tastes = unit(segments[segment] + s.taste_spread * own)
    return segment, rng.normal(size=s.users), tastes


@pytest.mark.parametrize("settings", [*PRESETS.values(), TINY])
def test_without_drift_a_world_is_bit_for_bit_what_it_was(settings: WorldSettings) -> None:
    world = World(settings)
    found = (world.segment, world.activity, world.tastes(np.arange(settings.users)))
    for array, before in zip(found, tastes_before_drift_was_thought_of(world)):
        np.testing.assert_array_equal(array, before)


def test_at_zero_is_the_same_world() -> None:
    world = World(TINY)
    for one, other in zip(everything(world), everything(world.at(0.7).at(0.0))):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("drift", [0.3, 1.0])
def test_moving_there_and_being_made_there_are_the_same(drift: float) -> None:
    made = World(msgspec.structs.replace(TINY, drift=drift))
    for one, other in zip(everything(made), everything(World(TINY).at(drift))):
        np.testing.assert_array_equal(one, other)


def test_items_and_users_stay_and_the_world_itself_is_not_touched() -> None:
    world = World(TINY)
    before = world.tastes(np.arange(TINY.users)).copy()
    moved = world.at(1.0)
    np.testing.assert_array_equal(world.tastes(np.arange(TINY.users)), before)
    assert world.settings.drift == 0
    assert moved.item_latent is world.item_latent
    np.testing.assert_array_equal(moved.segment, world.segment)
    np.testing.assert_array_equal(moved.activity, world.activity)
    np.testing.assert_allclose(np.linalg.norm(moved.tastes(np.arange(9)), axis=1), 1)


def test_tastes_move_steadily_and_by_segment() -> None:
    world, users = World(PRESETS["noisy"]), np.arange(PRESETS["noisy"].users)
    start = world.tastes(users)
    alike = [float((world.at(d).tastes(users) * start).sum(1).mean()) for d in (0, 0.25, 0.5, 1)]
    assert alike[0] == pytest.approx(1)
    assert all(earlier > later for earlier, later in itertools.pairwise(alike))
    assert alike[-1] < 0.5
    # The rule that features can show: which categories a segment clicks is another one at the end.
    end = world.at(1.0)

    def liked(of: World) -> np.ndarray:
        """Mean affinity [segments, categories]."""
        affinity = of.tastes(users) @ of.item_latent.T
        by_user = np.stack([affinity[:, of.category == c].mean(1) for c in range(20)], axis=1)
        return np.stack([by_user[of.segment == g].mean(0) for g in range(12)])

    same = np.corrcoef(liked(world).ravel(), liked(world).ravel())[0, 1]
    moved = np.corrcoef(liked(world).ravel(), liked(end).ravel())[0, 1]
    assert same == pytest.approx(1)
    assert moved < 0.5


def test_the_truth_follows() -> None:
    """At a drift too, expected clicks are the definition, and what users do agrees with it."""
    world = World(TINY).at(0.8)
    rng = np.random.default_rng(0)
    users = rng.integers(TINY.users, size=10)
    items = np.stack([rng.permutation(TINY.items)[:6] for _ in users])
    found = world.expected("click", users, items)
    slow = [slow_click(world, int(user), row.tolist()) for user, row in zip(users, items)]
    np.testing.assert_allclose(found, slow, rtol=1e-9)
    assert not np.allclose(found, World(TINY).expected("click", users, items), rtol=1e-3)
    draws = 20_000
    many = world.act(np.repeat(users[:1], draws), np.tile(items[:1], (draws, 1)), rng)["click"]
    error = np.sqrt(found[0] * (1 - found[0]) / draws)
    assert (np.abs(many.mean(0) - found[0]) < 4.5 * error).all()


def test_a_dataset_of_a_moved_world_says_so_and_its_truth_is_the_moved_one() -> None:
    moved = msgspec.structs.replace(TINY, drift=1.0)
    source = Simulator(SimulatorSettings(world=moved, lists=3000))
    slates = list(source.slates(Tally()))
    settings = source.settings()["world"]
    assert settings["drift"] == 1.0
    clicks = np.array([sum(f.kind == "click" for f in slate.feedback) for slate in slates])
    shown = [np.array(slate.exposed) for slate in slates]
    truth = World(msgspec.convert(settings, type(TINY))).expected_of("click", slates, shown)
    assert abs(clicks.mean() - truth.mean()) < 4 * clicks.std() / len(clicks) ** 0.5
    assert np.corrcoef(clicks, truth)[0, 1] > 0.1


@pytest.mark.parametrize("drift", [-0.1, 1.1, float("nan")])
def test_drift_out_of_range_is_refused(drift: float) -> None:
    with pytest.raises(ValueError, match=r"drift is .*; allowed: 0 to 1"):
        World(TINY).at(drift)
