"""Lists drawn from a policy in three ways: valid, repeatable, and drawn as they say."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.model.tiny import cold, lively_model, one_row, padded, random_batch
from training.data.batch import Batch
from training.decoding.choice import gumbel
from training.decoding.omtp import OmtpDecode
from training.model.gen_reranker import GenReranker
from training.pairs.base import row_seeds
from training.pairs.drawing import ACCIDENTS, SEEDS, Draw, draw_lists, perturb

POLICY = lively_model(2, pairwise=("colour",))
WAYS: tuple[Draw, ...] = ("temperature", "gumbel_top", "perturbed")

shapes = st.lists(st.integers(1, 12), min_size=1, max_size=4)
ways = st.sampled_from(WAYS)


def seeds_of(batch: Batch, seed: int = 0) -> Tensor:
    return row_seeds(seed, 1, batch.row)


def check_valid(found: list[int], m: int, n: int) -> None:
    """No item twice, all of them candidates, -1 once all are in."""
    real = found[: min(m, n)]
    assert len(found) == n
    assert len(set(real)) == len(real)
    assert all(0 <= item < m for item in real)
    assert found[len(real) :] == [-1] * (n - len(real))


@settings(max_examples=60)
@given(shapes, ways, st.integers(1, 7), st.integers(1, 5), st.integers(0, 2**20))
def test_lists_are_valid_and_the_first_is_the_greedy_one(
    counts: list[int], how: Draw, n: int, draws: int, seed: int
) -> None:
    batch = random_batch(counts, seed=seed)
    lists = draw_lists(POLICY, batch, n, draws, 1.0, seeds_of(batch, seed), how)
    assert lists.shape == (len(counts), draws + 1, n)
    assert lists.dtype == torch.int64
    greedy, _, _ = OmtpDecode(POLICY.decoder, n)(*POLICY.encode(batch), *cold(len(counts)))
    assert lists[:, 0].tolist() == greedy.tolist()
    for row, m in enumerate(counts):
        for one in lists[row].tolist():
            check_valid(one, m, n)


@settings(max_examples=40)
@given(shapes, ways, st.integers(0, 2**20), st.integers(0, 6))
def test_a_requests_lists_depend_on_its_seed_alone(
    counts: list[int], how: Draw, seed: int, more: int
) -> None:
    """Not on the rest of the batch, nor on how many candidates it is padded to."""
    batch = random_batch(counts, seed=seed)
    seeds = seeds_of(batch, seed)
    together = draw_lists(POLICY, batch, 5, 3, 1.0, seeds, how)
    wide = draw_lists(POLICY, padded(batch, more), 5, 3, 1.0, seeds, how)
    assert wide.tolist() == together.tolist()
    for row in range(len(counts)):
        alone = draw_lists(POLICY, one_row(batch, row), 5, 3, 1.0, seeds[row : row + 1], how)
        assert alone[0].tolist() == together[row].tolist()


@pytest.mark.parametrize("how", WAYS)
def test_other_seeds_and_other_draws_give_other_lists(how: Draw) -> None:
    batch = random_batch([12] * 30, seed=1)
    first, second = (
        draw_lists(POLICY, batch, 6, 4, 1.5, seeds_of(batch, seed), how) for seed in (0, 1)
    )
    assert second[:, 0].tolist() == first[:, 0].tolist()
    for other in (second[:, 1:], first[:, :1]):  # every draw, in most requests
        assert ((first[:, 1:] != other).any(2).float().mean(0) > 0.7).all()
    distinct = [len({tuple(one) for one in row}) for row in first.tolist()]
    assert sum(distinct) / len(distinct) > 3.5


def own_seed(seed: Tensor, row: int, number: int) -> Tensor:
    """Of one list of a request [1, 1]."""
    return (seed[row] * SEEDS + number).view(1, 1)


def one_head_for_all() -> GenReranker:
    """A policy whose heads all ask for the same: one pass then scores each candidate once."""
    policy = copy.deepcopy(lively_model(8))
    query, width = policy.decoder.query, policy.settings.width
    with torch.no_grad():
        query.weight.copy_(query.weight[:width].repeat(8, 1))
        query.bias.copy_(query.bias[:width].repeat(8))
    return policy


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_gumbel_top_sorts_by_score_and_luck(temperature: float) -> None:
    policy, counts = one_head_for_all(), [9, 12, 4, 8]
    batch = random_batch(counts, seed=7)
    seeds = seeds_of(batch)
    lists = draw_lists(policy, batch, 6, 5, temperature, seeds, "gumbel_top")
    z, prior = policy.encode(batch)
    logits = policy.block_logits(z, prior, torch.full([4, 1], -1))[:, 0]
    for row, m in enumerate(counts):
        for number in range(1, 6):
            luck = gumbel(own_seed(seeds, row, number), 0, m)[0]
            keys = (logits[row, :m] / temperature + luck).tolist()
            by_key = sorted(range(m), key=lambda item: -keys[item])[:6]
            assert lists[row, number].tolist() == by_key + [-1] * (6 - len(by_key))


@settings(max_examples=30)
@given(shapes, st.sampled_from(["temperature", "gumbel_top"]), st.integers(0, 2**20))
def test_each_choice_is_the_best_by_score_and_luck(counts: list[int], how: Draw, seed: int) -> None:
    """With luck drawn anew at each position, or once a candidate; scores follow from the prefix."""
    batch, n, draws, temperature = random_batch(counts, seed=seed), 5, 3, 0.7
    seeds = seeds_of(batch, seed)
    lists = draw_lists(POLICY, batch, n, draws, temperature, seeds, how)
    z, prior = POLICY.encode(batch)
    for number in range(1, draws + 1):
        logits = POLICY.block_logits(z, prior, lists[:, number])
        for row, m in enumerate(counts):
            taken: list[int] = []
            for k, item in enumerate(lists[row, number, : min(m, n)].tolist()):
                step = 0 if how == "gumbel_top" else k
                luck = gumbel(own_seed(seeds, row, number), step, m)[0]
                keys = (logits[row, k, :m] / temperature + luck).tolist()
                assert keys[item] >= max(keys[j] for j in range(m) if j not in taken) - 1e-3
                taken.append(item)


def test_cold_draws_are_the_greedy_list() -> None:
    batch = random_batch([10] * 8, seed=3)
    for how in ("temperature", "gumbel_top"):
        lists = draw_lists(lively_model(2), batch, 5, 3, 1e-6, seeds_of(batch), how)  # type: ignore[arg-type]
        assert (lists == lists[:, :1]).all()


def perturbed_by_loops(order: list[int], m: int, seed: Tensor) -> list[int]:
    order = list(order)
    shown = [place for place, item in enumerate(order) if item >= 0]
    for accident in range(ACCIDENTS):
        luck = gumbel(seed, 2 * accident, len(order))[0].tolist()
        place = max(shown, key=lambda k: luck[k])
        luck = gumbel(seed, 2 * accident + 1, m)[0].tolist()
        item = max(range(m), key=lambda j: luck[j])
        if item in order:
            order[order.index(item)] = order[place]
        order[place] = item
    return order


@settings(max_examples=60)
@given(shapes, st.integers(1, 7), st.integers(0, 2**31))
def test_perturb_by_loops(counts: list[int], n: int, seed: int) -> None:
    """Lists stay valid, and differ in two places an accident at most."""
    generator = torch.Generator().manual_seed(seed)
    orders = torch.full([len(counts), n], -1)
    for row, m in enumerate(counts):
        orders[row, : min(m, n)] = torch.randperm(m, generator=generator)[:n]
    before = orders.clone()
    seeds = torch.arange(len(counts)) * 977 + seed
    got = perturb(orders, torch.tensor(counts), seeds)
    assert torch.equal(orders, before)
    for row, m in enumerate(counts):
        found = got[row].tolist()
        check_valid(found, m, n)
        assert sum(a != b for a, b in zip(found, before[row].tolist())) <= 2 * ACCIDENTS
        assert found == perturbed_by_loops(before[row].tolist(), m, seeds[row].view(1, 1))


def test_accidents_reach_every_place_and_candidate() -> None:
    """Those that were not in the list as well as those that were."""
    orders = torch.arange(4).expand(400, -1)
    got = perturb(orders, torch.full([400], 9), torch.arange(400))
    changed = got != orders
    assert (changed.float().mean(0) > 0.2).all()
    assert set(got.flatten().tolist()) == set(range(9))
    swapped = (got.sort(1).values == torch.arange(4)).all(1) & changed.any(1)
    assert swapped.any()
