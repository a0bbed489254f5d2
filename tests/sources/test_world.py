"""The simulated world: closed forms against sampling and against slow loops written by hand."""

from __future__ import annotations

import itertools
import math

import msgspec
import numpy as np
import pytest

from training.sources.simulator import headroom
from training.sources.world import KINDS, PRESETS, World, WorldSettings

TINY = WorldSettings(
    items=60,
    categories=4,
    users=40,
    segments=3,
    latent=6,
    candidates=8,
    list_size=6,
    retrieval=2.0,
    given_noise=0.5,
    logging_temperature=0.5,
    fatigue=0.7,
    fatigue_window=2,
    hide_rate=0.2,
)


@pytest.fixture(scope="module")
def world() -> World:
    return World(TINY)


def slow_click(world: World, user: int, items: list[int]) -> list[float]:
    """Click probability by position, from the definition alone."""
    s, probabilities = world.settings, []
    taste = world.tastes(np.array([user]))[0]
    for k, item in enumerate(items):
        logit = s.scale * sum(a * b for a, b in zip(taste, world.item_latent[item]))
        logit += world.quality[item] + s.activity_bias * world.activity[user] + s.bias
        alike = 0.0
        for earlier in items[max(0, k - s.fatigue_window) : k]:
            if world.category[earlier] == world.category[item]:
                cosine = sum(
                    a * b for a, b in zip(world.item_latent[earlier], world.item_latent[item])
                )
                alike = max(alike, cosine)
        examined = (k + 1) ** -s.position_bias
        probabilities.append(examined * (1 - s.fatigue * alike) / (1 + math.exp(-logit)))
    return probabilities


def test_expected_clicks_are_the_definition(world: World) -> None:
    rng = np.random.default_rng(0)
    users = rng.integers(TINY.users, size=20)
    items = np.stack([rng.permutation(TINY.items)[:6] for _ in users])
    found = world.expected("click", users, items)
    slow = [slow_click(world, int(user), row.tolist()) for user, row in zip(users, items)]
    np.testing.assert_allclose(found, slow, rtol=1e-9)
    # Fatigue must have been at work somewhere, else this test would be empty.
    assert (world.freshness(items) < 0.9).any()


@pytest.mark.parametrize("kind", KINDS)
def test_closed_forms_agree_with_sampling(world: World, kind: str) -> None:
    draws = 40_000
    users = np.full(draws, 3)
    # Items of one category among them, so that all positions have some fatigue to feel.
    alike = np.flatnonzero(world.category == world.category[0])[:3]
    row = np.r_[alike, np.flatnonzero(world.category != world.category[0])[:3]]
    items = np.tile(row, (draws, 1))
    drawn = world.act(users, items, np.random.default_rng(5))[kind]
    expected = world.expected(kind, users[:1], items[:1])[0]
    error = drawn.std(axis=0) / math.sqrt(draws)
    assert (np.abs(drawn.mean(axis=0) - expected) < 4.5 * error + 1e-9).all()
    assert (expected > 0).all()


def test_requests_are_the_same_on_every_processor(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """numpy partitions with the widest vectors there are, and leaves the set in any order."""
    first = world.draw(200, np.random.default_rng(7))
    partition = np.argpartition

    def other(values: np.ndarray, kth: int, axis: int) -> np.ndarray:  # type: ignore[type-arg]
        found = partition(values, kth, axis=axis)
        return np.concatenate([found[:, : kth + 1][:, ::-1], found[:, kth + 1 :]], axis=1)

    monkeypatch.setattr(np, "argpartition", other)
    again = world.draw(200, np.random.default_rng(7))
    assert (first.candidates == again.candidates).all()
    assert (first.scores == again.scores).all()


def test_kinds_are_consistent_with_each_other(world: World) -> None:
    rng = np.random.default_rng(2)
    requests = world.draw(500, rng)
    acts = world.act(requests.users, requests.candidates, rng)
    assert (acts["click"] >= acts["long_view"]).all()
    assert (acts["click"] >= acts["like"]).all()
    assert ((acts["watch_time"] > 0) == (acts["click"] > 0)).all()
    assert (acts["watch_time"] <= world.duration[requests.candidates] + 1e-9).all()
    assert not (acts["hide"] * acts["click"]).any()


def test_ended_lists_and_unknown_kind(world: World) -> None:
    users, items = np.array([1, 2]), np.array([[4, 5, -1, -1], [6, -1, -1, -1]])
    found = world.expected("click", users, items)
    assert (found[items < 0] == 0).all()
    np.testing.assert_allclose(found[0, :2], world.expected("click", users[:1], items[:1, :2])[0])
    assert world.expected("watch_time", users, items)[1, 1:].sum() == 0
    with pytest.raises(ValueError, match="allowed: click"):
        world.expected("purchase", users, items)


def test_logging_policy_is_plackett_luce() -> None:
    """Probabilities of all lists sum to one, and are those that are drawn."""
    world = World(msgspec.structs.replace(TINY, candidates=4, list_size=2))
    one = world.draw(1, np.random.default_rng(3))
    draws = 20_000
    many = type(one)(
        users=np.repeat(one.users, draws),
        candidates=np.repeat(one.candidates, draws, axis=0),
        scores=np.repeat(one.scores, draws, axis=0),
    )
    shown, log_prob = world.show(many, np.random.default_rng(4))
    weights = np.exp(one.scores[0] / world.settings.logging_temperature)
    total = 0.0
    for first, second in itertools.permutations(range(4), 2):
        probability = weights[first] / weights.sum()
        probability *= weights[second] / (weights.sum() - weights[first])
        total += probability
        hits = (shown == [first, second]).all(axis=1)
        error = math.sqrt(probability * (1 - probability) / draws)
        assert abs(hits.mean() - probability) < 4.5 * error
        if hits.any():
            np.testing.assert_allclose(log_prob[hits].sum(axis=1), math.log(probability))
    assert total == pytest.approx(1)


def test_requests_come_in_the_given_order_and_hold_items_once(world: World) -> None:
    requests = world.draw(300, np.random.default_rng(1))
    assert (np.diff(requests.scores, axis=1) <= 0).all()
    assert all(len(set(row)) == TINY.candidates for row in requests.candidates.tolist())
    shown, _ = world.show(requests, np.random.default_rng(1))
    assert all(len(set(row)) == TINY.list_size for row in shown.tolist())


def test_retrieval_prefers_the_users_taste() -> None:
    near, blind = (
        World(msgspec.structs.replace(TINY, retrieval=strength)) for strength in (6.0, 0.0)
    )

    def mean_affinity(world: World) -> float:
        requests = world.draw(400, np.random.default_rng(1))
        return float(world.affinity(requests.users, requests.candidates).mean())

    assert mean_affinity(near) > mean_affinity(blind) + 0.1


@pytest.mark.parametrize("window", [0, 1, 4])
def test_greedy_oracle_takes_the_best_next_item(window: int) -> None:
    # Few categories, so that items are alike throughout the window.
    world = World(msgspec.structs.replace(TINY, fatigue_window=window, categories=2))
    requests = world.draw(30, np.random.default_rng(9))
    found = world.greedy_oracle(requests.users, requests.candidates, 6)
    for user, candidates, order in zip(requests.users, requests.candidates, found):
        chosen: list[int] = []
        for best in order:
            values = []
            for index in range(TINY.candidates):
                if index in chosen:
                    values.append(-1.0)
                    continue
                row = [int(candidates[i]) for i in [*chosen, index]]
                values.append(slow_click(world, int(user), row)[-1])
            assert values[int(best)] == pytest.approx(max(values))
            chosen.append(int(best))


def test_greedy_oracle_gives_all_when_asked_for_more(world: World) -> None:
    requests = world.draw(5, np.random.default_rng(9))
    found = world.greedy_oracle(requests.users, requests.candidates, 20)
    assert (np.sort(found, axis=1) == np.arange(TINY.candidates)).all()


def test_world_is_a_function_of_its_settings() -> None:
    one, same = World(TINY), World(TINY)
    other = World(msgspec.structs.replace(TINY, seed=8))
    np.testing.assert_array_equal(one.item_latent, same.item_latent)
    np.testing.assert_array_equal(one.tastes(np.arange(9)), same.tastes(np.arange(9)))
    assert not np.allclose(one.item_latent, other.item_latent)
    first, again = (one.draw(7, np.random.default_rng(2)) for _ in range(2))
    np.testing.assert_array_equal(first.candidates, again.candidates)


def test_ids_map_back_and_strangers_are_refused(world: World) -> None:
    rows = np.array([0, 7, TINY.items - 1])
    np.testing.assert_array_equal(world.item_rows([world.item_id(r) for r in rows]), rows)
    np.testing.assert_array_equal(world.user_rows([world.user_id(3)]), [3])
    for stranger in ("i60", "u0", "i-1", "x", "i1.5"):
        with pytest.raises(ValueError, match="not of this world"):
            world.item_rows([stranger])


@pytest.mark.parametrize(
    ("name", "relevance", "oracle"),
    [
        ("plain", (0.15, 0.30), (0.15, 0.30)),
        ("position", (0.15, 0.30), (0.15, 0.30)),
        ("complements", (0.30, 0.42), (0.45, 0.58)),
        ("strong", (0.03, 0.06), (0.15, 0.25)),
        ("noisy", (0.08, 0.25), (0.20, 0.40)),
        ("fickle", (0.15, 0.35), (0.25, 0.45)),
    ],
)
def test_presets_have_the_headroom_that_the_docs_promise(
    name: str, relevance: tuple[float, float], oracle: tuple[float, float]
) -> None:
    clicks = headroom(World(PRESETS[name]), seed=11)
    gain = {order: clicks[f"true_clicks/{order}"] / clicks["true_clicks/given"] - 1
            for order in ("relevance", "greedy_oracle", "production")}  # fmt: skip
    assert relevance[0] < gain["relevance"] < relevance[1]
    assert oracle[0] < gain["greedy_oracle"] < oracle[1]
    assert gain["production"] < 0.01


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"candidates": 5}, "candidates is 5; allowed: list_size"),
        ({"items": 7}, "smaller of items"),
        ({"fatigue": 1.5}, "fatigue is 1.5; allowed: 0 to 1"),
        ({"logging_temperature": 0.0}, "logging_temperature is 0.0; allowed: above 0"),
        ({"given_noise": -1.0}, "given_noise is -1.0; allowed: 0 or more"),
        ({"users": 0}, "users is 0; allowed: at least 1"),
    ],
)
def test_impossible_worlds_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        msgspec.structs.replace(TINY, **changes)
