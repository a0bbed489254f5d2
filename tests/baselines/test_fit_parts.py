"""Parts of the peers against plain ones: searches, decodes, losses, rates, bounds."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.slate_columns import to_table
from tests.baselines.networks import inputs_of
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
from tests.model.tiny import SPEC as RICH
from tests.model.tiny import model_settings, one_row, random_batch
from training.baselines.base import PEERS, Oracle
from training.baselines.choosing import match_positions
from training.baselines.edge_rerank import beam_search
from training.baselines.fitting import PlaceBias, decoded_scores, discounted, fit_network
from training.baselines.nar4rec_peer import contrastive_decode, likelihood_loss, list_gain
from training.baselines.pier import Pier, PierSettings
from training.baselines.rates import FOLDS, PRIOR, Rates
from training.baselines.seq2slate import Seq2Slate
from training.baselines.seq2slate_peer import clicked_first, step_loss, teacher_forced
from training.data.arrays import SlateArrays, encode_table
from training.pairs.evaluator import Evaluator
from training.pairs.search import search_lists
from training.settings import EvaluatorSettings, OptimSettings
from training.sources.base import Tally
from training.sources.simulator import Simulator, SimulatorSettings
from training.sources.world_settings import PRESETS

SEEDS = st.integers(0, 9999)


def lively_evaluator(discount: str = "none") -> Evaluator:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        settings_ = EvaluatorSettings(
            width=16, layers=1, attention_heads=2, discount="log" if discount == "log" else "none"
        )
        made = Evaluator(RICH, settings_)
        with torch.no_grad():
            for one in made.parameters():
                one += 0.4 * torch.randn_like(one)
    return made.eval().requires_grad_(False)


@pytest.mark.parametrize("discount", ["none", "log"])
@settings(max_examples=8, deadline=None)
@given(counts=st.lists(st.integers(1, 5), min_size=1, max_size=3), seed=SEEDS)
def test_a_wide_beam_finds_the_best_of_all_lists(
    discount: str, counts: list[int], seed: int
) -> None:
    model = lively_evaluator(discount)
    batch = random_batch(counts, seed=seed)
    found = beam_search(model, batch, 3, beam=60)
    value = model.value(batch, found.unsqueeze(1))[:, 0]
    for row, m in enumerate(counts):
        every = torch.full([1, math.perm(m, min(m, 3)), found.size(1)], -1)
        for index, one in enumerate(itertools.permutations(range(m), min(m, 3))):
            every[0, index, : len(one)] = torch.tensor(one)
        alone = one_row(batch, row)
        best = model.value(alone, every).max()
        assert float(value[row]) == pytest.approx(float(best), abs=1e-4)
        listed = found[row][found[row] >= 0].tolist()
        assert len(set(listed)) == len(listed) == min(m, 3)


@settings(max_examples=15, deadline=None)
@given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=4), seed=SEEDS)
def test_a_beam_of_one_or_a_settled_one_is_greedy(counts: list[int], seed: int) -> None:
    model, batch = lively_evaluator(), random_batch(counts, seed=seed)
    greedy = search_lists(model, batch, 4)[:, : min(4, max(counts))]
    assert torch.equal(beam_search(model, batch, 4, beam=1), greedy)
    assert torch.equal(beam_search(model, batch, 4, beam=5, stable=0.0), greedy)


def test_a_wider_beam_is_worth_more_and_stops_where_it_is_told() -> None:
    model, batch = lively_evaluator(), random_batch([12] * 60, seed=1)
    worth = [
        float(model.value(batch, beam_search(model, batch, 6, *arguments).unsqueeze(1)).mean())
        for arguments in ((1, 2.0), (8, 0.9), (8, 2.0))
    ]
    assert worth[0] < worth[1] < worth[2]


@settings(max_examples=30, deadline=None)
@given(m=st.integers(1, 6), padding=st.integers(0, 2), alpha=st.floats(0.0, 0.9), seed=SEEDS)
def test_contrastive_decoding_is_the_formula(m: int, padding: int, alpha: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, 4, m + padding, generator=generator)
    logits[:, :, m:] = -1e9
    z = torch.randn(1, m + padding, 5, generator=generator)
    found = contrastive_decode(logits, z, alpha)[0].tolist()
    unit = (z[0] / z[0].norm(dim=1, keepdim=True)).tolist()
    taken: list[int] = []
    for place in range(4):
        left = [j for j in range(m) if j not in taken]
        if not left:
            assert found[place] == -1
            continue
        total = sum(math.exp(logits[0, place, j]) for j in left)
        scores = {}
        for j in left:
            alike = max((sum(a * b for a, b in zip(unit[j], unit[i])) for i in taken), default=0.0)
            scores[j] = (1 - alpha) * math.exp(logits[0, place, j]) / total - alpha * alike
        best = max(scores.values())
        assert scores[found[place]] == pytest.approx(best, abs=1e-5)
        taken.append(found[place])


def test_without_contrast_it_is_the_matching_of_positions() -> None:
    logits = torch.randn(9, 4, 6, generator=torch.Generator().manual_seed(0))
    matched, _ = match_positions(logits, torch.zeros(9, 6))
    found = contrastive_decode(logits, torch.randn(9, 6, 3), 0.0)
    assert torch.equal(found, matched.long())


def test_contrast_pushes_like_items_apart() -> None:
    logits = torch.tensor([[[2.0, 1.9, 1.0]] * 2])
    z = torch.tensor([[[1.0, 0.0], [1.0, 0.01], [0.0, 1.0]]])
    assert contrastive_decode(logits, z, 0.0).tolist() == [[0, 1]]
    assert contrastive_decode(logits, z, 0.4).tolist() == [[0, 2]]


def test_unlikelihood_is_the_formula() -> None:
    batch = random_batch([5, 6], shown=[3, 2], seed=0)
    logits = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(1))
    good = torch.tensor([True, False])
    p = logits.softmax(-1)
    likely = sum(-math.log(p[0, k, batch.exposed[0, k]]) for k in range(3)) / 3
    unlikely = sum(-math.log(1 - p[1, k, batch.exposed[1, k]]) for k in range(2)) / 2
    found = likelihood_loss(logits, batch, good, 0.5)
    assert float(found) == pytest.approx((likely + 0.5 * unlikely) / 2, rel=1e-5)
    # A list that is certain must not blow up.
    certain = torch.full_like(logits, -50.0).scatter(2, batch.exposed.clamp(0)[..., None], 50.0)
    certain.requires_grad_()
    likelihood_loss(certain, batch, ~good, 1.0).backward()
    assert torch.isfinite(certain.grad).all()


def test_the_gain_of_a_list_is_discounted() -> None:
    exposed = torch.tensor([[4, 2, 1], [0, 3, -1]])
    utility = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
    expected = [1 / math.log2(3) + 1 / math.log2(4), 1.0]
    assert list_gain(exposed, utility).tolist() == pytest.approx(expected)


def small_pointer() -> Seq2Slate:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made = Seq2Slate(RICH, model_settings())
        with torch.no_grad():
            for one in made.parameters():
                one += 0.3 * torch.randn_like(one)
    return made.eval().requires_grad_(False)


def test_teacher_forcing_is_what_decoding_sees() -> None:
    """Fed with its own list, each step's best free candidate is the next item of that list."""
    made = small_pointer()
    batch = random_batch([9, 4, 12, 1], seed=2)
    order, score = made(*inputs_of(batch))
    logits = teacher_forced(made, batch, order.long())
    for row, m in enumerate([9, 4, 12, 1]):
        free = torch.zeros(logits.size(2))
        for step in range(min(m, RICH.list_size)):
            log_p = (logits[row, step] + free).log_softmax(0)
            assert int(log_p.argmax()) == order[row, step]
            assert float(log_p.max()) == pytest.approx(float(score[row, step]), abs=1e-4)
            free[order[row, step]] = -1e9


@pytest.mark.parametrize("tail", [0.0, 0.3])
def test_step_loss_is_the_formula(tail: float) -> None:
    batch = random_batch([6, 5, 4], shown=[4, 3, 2], seed=4)
    lists, gain = clicked_first(batch)
    for row in range(3):
        known = dict(zip(batch.exposed[row].tolist(), batch.utility[row].tolist()))
        listed = [one for one in lists[row].tolist() if one >= 0]
        assert sorted(listed) == sorted(one for one in known if one >= 0)
        assert gain[row, : len(listed)].tolist() == [known[one] for one in listed]
        assert (
            gain[row, : len(listed)].tolist()
            == sorted(gain[row].tolist(), reverse=True)[: len(listed)]
        )
    logits = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    expected = 0.0
    for row, n in enumerate([4, 3, 2]):
        total = 0.0
        for step in range(n):
            free = [j for j in range(6) if j not in lists[row, :step].tolist()]
            norm = math.log(sum(math.exp(logits[row, step, j]) for j in free))
            clicked = [k for k in range(step, n) if gain[row, k] > 0]
            for k in clicked or [step]:
                share = 1 / len(clicked) if clicked else tail
                total -= share * (float(logits[row, step, lists[row, k]]) - norm)
        expected += total / n / 3
    assert float(step_loss(logits, lists, gain, tail)) == pytest.approx(expected, rel=1e-5)


def test_pier_keeps_the_nearest_permutations_and_shows_the_best() -> None:
    torch.manual_seed(0)
    chosen = PierSettings(width=8, layers=1, attention_heads=2, pool=12, keep=4, bits=16)
    made = Pier(RICH, chosen).eval().requires_grad_(False)
    batch = random_batch([9, 3], seed=0)
    item, user = made.embed(batch)
    noise = torch.randn(12, 9, generator=torch.Generator().manual_seed(0))
    pool = made.draw(made.scores(item, user), batch.count, noise, 6)
    assert pool.shape == (2, 12, 6)
    assert all(sorted(one) == [-1, -1, -1, 0, 1, 2] for one in pool[1].tolist())
    whole, wanted = made.whole(item, pool), made.wanted(item, user, batch.count)
    near = made.nearest(whole, wanted)
    distance = ((whole @ made.planes > 0) != (wanted @ made.planes > 0)[:, None]).sum(-1)
    for row in range(2):
        kept = distance[row, near[row]]
        others = [int(distance[row, k]) for k in range(12) if k not in near[row].tolist()]
        assert len(kept) == 4
        assert int(kept.max()) <= min(others)
    # Values do not depend on which other lists are asked about.
    values = made.values(item, user, pool)
    torch.testing.assert_close(made.values(item, user, pool[:, 3:5]), values[:, 3:5])


def test_pier_draws_follow_plackett_luce() -> None:
    """First places of many draws against the softmax of the standardised scores."""
    torch.manual_seed(0)
    made = Pier(RICH, PierSettings(width=8, attention_heads=2, temperature=0.7))
    scores = torch.tensor([[1.0, 3.0, 2.0, 9.0]])
    noise = -torch.log(-torch.log(torch.rand(40_000, 4)))
    first = made.draw(scores, torch.tensor([3]), noise, 2)[0, :, 0]
    real = scores[0, :3]
    standard = (real - real.mean()) / (real.std(correction=0) + 1e-3)
    expected = (standard / 0.7).softmax(0)
    found = torch.bincount(first, minlength=3) / 40_000
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0)


def test_rates_are_out_of_fold_for_the_training_lists() -> None:
    arrays = repeats_world(200, 4)
    rates = Rates(arrays)
    found = rates.features(arrays.item_cat, arrays.user_cat, training=True)
    served = rates.features(arrays.item_cat, arrays.user_cat)
    mean = arrays.utility.mean()
    colours = np.take_along_axis(arrays.item_cat[..., 0], arrays.exposed, 1)
    for row in (0, 7, 199):
        for candidate in (0, 5):
            colour = arrays.item_cat[row, candidate, 0]
            for value, rows in (
                (found[row, candidate, 0], np.arange(200) % FOLDS != row % FOLDS),
                (served[row, candidate, 0], np.ones(200, bool)),
            ):
                same = colours[rows] == colour
                sums = (arrays.utility[rows] * same).sum() + PRIOR * mean
                assert value == pytest.approx(sums / (same.sum() + PRIOR), rel=1e-4)


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
