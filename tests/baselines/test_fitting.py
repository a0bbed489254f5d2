"""The loop that fits peers, its discounts, and the bounds."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from contracts.slate_columns import to_table
from tests.baselines.toys import (
    SPEC,
    fitted,
    merit_click,
    merit_world,
    repeats_world,
    rerank_all,
    slates,
    small,
)
from training.baselines.base import PEERS, Oracle
from training.baselines.fitting import PlaceBias, decoded_scores, discounted, fit_network
from training.data.arrays import SlateArrays, encode_table
from training.settings import OptimSettings
from training.sources.base import Tally
from training.sources.simulator import Simulator, SimulatorSettings
from training.sources.world_settings import PRESETS


def test_place_bias_begins_with_the_rates_of_places() -> None:
    arrays = repeats_world(400, 5)
    found = PlaceBias(arrays)(3).sigmoid().detach().numpy()
    assert found == pytest.approx(arrays.utility.mean(0), abs=1e-4)


def test_the_loop_gives_the_best_epoch_back_and_stops() -> None:
    network = torch.nn.Linear(1, 1)
    seen: list[float] = []

    def held_out() -> dict[str, float]:
        seen.append(float(network.weight.detach()))
        return {"held_out": [0.0, 3.0, 2.0, 1.0, 9.0][len(seen) - 1]}

    epoch = fit_network(
        network,
        lambda batch: (network.weight - 5).square().sum() * batch.utility.mean().clamp(min=1),
        held_out,
        merit_world(60, 6),
        OptimSettings(epochs=5, batch_size=20, learning_rate=0.1, patience=2),
        seed=0,
        on_epoch=lambda **_: None,
    )
    assert (epoch, len(seen)) == (2, 4)
    assert network.weight.item() == seen[1] != seen[3]


def test_a_loss_that_is_not_finite_is_said() -> None:
    network = torch.nn.Linear(1, 1)
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        fit_network(
            network,
            lambda _: network.weight.sum() * math.nan,
            lambda: {"held_out": 0.0},
            merit_world(60, 6),
            OptimSettings(epochs=1),
            seed=0,
            on_epoch=lambda **_: None,
        )


def test_generators_are_held_out_by_ndcg_only_where_all_was_shown() -> None:
    some = merit_world(60, 6)
    rerank = PEERS["given"].fit(some, some, SPEC, None, 0, lambda **_: None).rerank
    whole = np.tile(np.arange(3), (60, 1))
    all_shown = replace(some, count=np.full(60, 3, np.int32), exposed=whole)
    where = torch.device("cpu")
    for arrays, by_loss in ((some, True), (all_shown, False)):
        scores = decoded_scores(rerank, lambda _: torch.tensor(0.25), arrays, where)
        assert scores["held_out"] == (-0.25 if by_loss else scores["ndcg"])


def test_bounds() -> None:
    asked = merit_world(500, 3)
    given_order = rerank_all(fitted("given", "merit")[0], asked)
    assert (given_order == np.arange(3)).all()
    random = rerank_all(fitted("random", "merit")[0], asked)
    share = np.bincount(random.ravel(), minlength=6) / random.size
    assert share == pytest.approx(np.full(6, 1 / 6), abs=0.05)


@pytest.mark.parametrize("world", ["noisy", "strong"])
def test_the_oracle_earns_more_than_any_other_bound(world: str) -> None:
    simulator = Simulator(SimulatorSettings(world=PRESETS[world], lists=150))
    slates = list(simulator.slates(Tally()))
    table = to_table(slates, simulator.spec).combine_chunks()
    arrays = encode_table(table, simulator.spec)
    asked = arrays.take(np.arange(50, 150))
    oracle = Oracle(simulator.world, asked)
    lists = {"oracle": rerank_all(oracle, asked)}
    for name in ("given", "random"):
        peer = PEERS[name].fit(arrays, arrays, simulator.spec, None, 0, lambda **_: None)
        lists[name] = rerank_all(peer, asked)
    truth = {
        name: simulator.world.expected_of("click", slates[50:], list(order)).mean()
        for name, order in lists.items()
    }
    assert truth["random"] < truth["given"] < 0.95 * truth["oracle"]
    # A part of the slates has rows of its own: the batch's rows say which.
    few = asked.batch(np.array([7, 3]))
    assert np.array_equal(oracle.rerank(few).numpy(), lists["oracle"][[7, 3]])


def test_what_only_orders_is_discounted() -> None:
    some = merit_world(60, 6)
    all_shown = replace(
        some, count=np.full(60, 3, np.int32), exposed=np.tile(np.arange(3), (60, 1))
    )
    assert [discounted("auto", one) for one in (some, all_shown)] == [False, True]
    assert [discounted(word, some) for word in ("none", "log")] == [False, True]
    with pytest.raises(ValueError, match="allowed: auto, none, log"):
        discounted("linear", some)


@pytest.mark.parametrize("name", ["edge_rerank", "pier", "nar4rec"])
def test_lists_are_ordered_where_all_is_shown_and_places_do_nothing(name: str) -> None:
    """Without the discount every order of all candidates would be worth the same."""

    def whole(seed: int) -> SlateArrays:
        some = merit_world(600, seed)
        order = np.argsort(np.random.default_rng(seed).random((600, 3)), axis=1)
        wanted = merit_click(np.take_along_axis(some.item_dense[:, :3, 0], order, 1))
        clicks = np.random.default_rng(seed + 1).random((600, 3)) < wanted
        return slates(
            some.item_cat[:, :3, 0].astype(np.int64) - 2,
            some.item_dense[:, :3, 0].astype(float),
            np.full(600, 3),
            order,
            clicks,
        )

    asked = whole(9)
    made = PEERS[name].fit(whole(7), whole(8), SPEC, small(name), 0, lambda **_: None)
    first = rerank_all(made, asked)[:, 0]
    assert (first == asked.item_dense[..., 0].argmax(1)).mean() > 0.75
