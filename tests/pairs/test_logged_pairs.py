"""Pairs of what was shown: Eq. 7, and its mirror."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from tests.model.tiny import lively_model, one_row, random_batch
from training.data.batch import Batch
from training.pairs.base import PairSource, random_keys, row_seeds, sort_exposed
from training.pairs.exposure import ExposurePairs
from training.pairs.mirrored import MirroredPairs, mirror_utility

POLICY = lively_model()  # not looked at by these sources
seeds = st.integers(0, 2**31)
shapes = st.lists(st.integers(1, 12), min_size=1, max_size=5)


def shown(utility: list[list[float]]) -> Batch:
    """Lists y1, y2, ... (as items 0, 1, ...) shown with these utilities."""
    sizes = [len(row) for row in utility]
    batch = random_batch(sizes)
    exposed = torch.full([len(sizes), max(sizes)], -1)
    padded = torch.zeros(len(sizes), max(sizes))
    for row, values in enumerate(utility):
        exposed[row, : len(values)] = torch.arange(len(values))
        padded[row, : len(values)] = torch.tensor(values)
    return replace(batch, exposed=exposed, utility=padded)


def items(lists: Tensor) -> list[list[int]]:
    return [[int(item) for item in row if item >= 0] for row in lists]


def test_the_worked_example_of_equation_7() -> None:
    """Clicks on y2 and y5 give y2, y5, y1, y3, y4."""
    batch = shown([[0, 1, 0, 0, 1]])
    pairs = ExposurePairs(1.0, 1.0).pairs(batch, POLICY, torch.tensor([1]))
    assert items(pairs.chosen) == [[1, 4, 0, 2, 3]]
    assert items(pairs.rejected) == [[0, 1, 2, 3, 4]]
    assert pairs.weight.tolist() == [1.0]


def test_alpha_and_gamma_weigh_position_and_feedback() -> None:
    """With alpha 1, S = 1, 1/2 + u, 1/3 + u, ...: y2 stays behind y1 until gamma reaches 1/2."""
    batch = shown([[0, 1, 0]])
    seed = torch.tensor([1])
    assert ExposurePairs(1.0, 0.4).pairs(batch, POLICY, seed).weight.tolist() == [0.0]
    # S of y1 and y2 tie at 1: as shown.
    assert ExposurePairs(1.0, 0.5).pairs(batch, POLICY, seed).weight.tolist() == [0.0]
    assert items(ExposurePairs(1.0, 0.6).pairs(batch, POLICY, seed).chosen) == [[1, 0, 2]]
    # By feedback alone: items without it keep their order.
    batch = shown([[0, 0, 0.3, 0, 0.9]])
    assert items(ExposurePairs(0.0, 1.0).pairs(batch, POLICY, seed).chosen) == [[4, 2, 0, 1, 3]]


def test_a_continuous_utility_sorts_by_its_size() -> None:
    """S = 1.2, 1.0, 1.23, 0.25: watch time moves items as far as it goes."""
    batch = shown([[0.2, 0.5, 0.9, 0.0]])
    pairs = ExposurePairs(1.0, 1.0).pairs(batch, POLICY, torch.tensor([1]))
    assert items(pairs.chosen) == [[2, 0, 1, 3]]


def test_lists_without_a_difference_give_no_pair() -> None:
    batch = shown([[0, 0, 0], [1, 0], [1, 1, 1, 1], [0, 1]])
    pairs = ExposurePairs(1.0, 1.0).pairs(batch, POLICY, torch.arange(4))
    assert pairs.weight.tolist() == [0, 0, 0, 1]
    assert items(pairs.chosen)[:3] == items(pairs.rejected)[:3]


def test_ties_stay_as_shown_in_the_longest_list() -> None:
    """Sorting algorithms change with the length; what ties must keep its order at any."""
    batch = shown([[0.5] * 64, [0.0, 1.0] * 32])
    pairs = ExposurePairs(0.0, 1.0).pairs(batch, POLICY, torch.arange(2))
    assert items(pairs.chosen)[0] == list(range(64))
    assert items(pairs.chosen)[1] == [*range(1, 64, 2), *range(0, 64, 2)]


@given(shapes, seeds, st.floats(0, 3), st.floats(0, 3))
def test_sort_exposed_by_sorting(sizes: list[int], seed: int, alpha: float, gamma: float) -> None:
    batch = random_batch([m + 2 for m in sizes], sizes, seed)
    got = sort_exposed(batch.exposed, batch.utility, alpha, gamma)
    for row, size in enumerate(sizes):
        y, u = batch.exposed[row, :size].tolist(), batch.utility[row, :size].tolist()
        score = [
            float(torch.tensor(alpha / (place + 1)) + gamma * torch.tensor(u[place]))
            for place in range(size)
        ]
        assume(len({round(s, 5) for s in score}) == len(set(score)))
        places = sorted(range(size), key=lambda place: -score[place])  # stable
        assert got[row].tolist() == [y[p] for p in places] + [-1] * (got.size(1) - size)


@given(shapes, seeds, st.sampled_from(("exposure", "mirrored")), st.integers(0, 2**40))
def test_a_pair_holds_the_shown_items_whatever_the_batch(
    sizes: list[int], seed: int, name: str, pair_seed: int
) -> None:
    source: PairSource = (ExposurePairs if name == "exposure" else MirroredPairs)(1.0, 1.0)
    batch = random_batch(sizes, seed=seed)
    pair_seeds = torch.arange(len(sizes)) * 17 + pair_seed
    pairs = source.pairs(batch, POLICY, pair_seeds)
    for side in (pairs.chosen, pairs.rejected):
        assert [sorted(row) for row in items(side)] == [list(range(m)) for m in sizes]
        assert ((side >= 0) == (batch.exposed >= 0)).all()
    unequal = [float(c != r) for c, r in zip(items(pairs.chosen), items(pairs.rejected))]
    assert pairs.weight.tolist() == unequal
    for row, size in enumerate(sizes):
        alone = source.pairs(one_row(batch, row), POLICY, pair_seeds[row : row + 1])
        assert alone.chosen[0].tolist() == pairs.chosen[row, :size].tolist()
        assert alone.rejected[0].tolist() == pairs.rejected[row, :size].tolist()
        assert float(alone.weight) == float(pairs.weight[row])


@given(shapes, seeds, seeds)
def test_mirrored_feedback_stands_on_other_items(sizes: list[int], seed: int, draw: int) -> None:
    """As much feedback as there was, and on items without it while there are enough."""
    batch = random_batch([m + 3 for m in sizes], sizes, seed)
    mirror = mirror_utility(batch.exposed, batch.utility, torch.arange(len(sizes)) + draw)
    for row, size in enumerate(sizes):
        real, moved = batch.utility[row, :size], mirror[row, :size]
        assert sorted(moved.tolist()) == sorted(real.tolist())
        assert (mirror[row, size:] == 0).all()
        clicked = int((real > 0).sum())
        shared = int(((real > 0) & (moved > 0)).sum())
        assert shared == max(0, 2 * clicked - size)


def test_continuous_feedback_is_mirrored_value_for_value() -> None:
    exposed = torch.arange(6).expand(200, 6)
    utility = torch.tensor([0.9, 0.0, 0.4, 0.0, 0.0, 0.0]).expand(200, 6)
    mirror = mirror_utility(exposed, utility, torch.arange(200))
    assert (mirror[:, [0, 2]] == 0).all()
    assert (mirror.sort(dim=1).values[:, -2:] == torch.tensor([0.4, 0.9])).all()


def test_the_mirror_chooses_among_the_others_evenly() -> None:
    """One click on the third of five: each of the other four gets its mirror a quarter of times."""
    draws = 8000
    exposed = torch.arange(5).expand(draws, 5)
    utility = torch.tensor([0.0, 0, 1, 0, 0]).expand(draws, 5)
    seeds_ = row_seeds(3, 1, torch.arange(draws))
    counts = mirror_utility(exposed, utility, seeds_).sum(0)
    assert counts[2] == 0
    assert counts[[0, 1, 3, 4]].tolist() == pytest.approx([draws / 4] * 4, rel=0.1)


def test_winner_and_loser_of_a_mirrored_pair_are_alike_but_for_the_feedback() -> None:
    """Over many slates both sides move items from each place to each place equally often."""
    draws = 6000
    generator = torch.Generator().manual_seed(0)
    exposed = torch.arange(5).expand(draws, 5)
    clicked = torch.randint(0, 5, [draws, 1], generator=generator)  # at any place alike
    utility = torch.zeros(draws, 5).scatter(1, clicked, 1.0)
    batch = replace(random_batch([5] * draws), exposed=exposed, utility=utility)
    pairs = MirroredPairs(1.0, 1.0).pairs(batch, POLICY, row_seeds(0, 1, torch.arange(draws)))
    first = [torch.bincount(side[:, 0], minlength=5) for side in (pairs.chosen, pairs.rejected)]
    torch.testing.assert_close(first[0].float(), first[1].float(), rtol=0.15, atol=30)


def test_epochs_mirror_anew() -> None:
    batch = shown([[0, 1, 0, 0, 0, 0, 0, 0]] * 40)
    first, second = (
        MirroredPairs(1.0, 1.0).pairs(batch, POLICY, row_seeds(0, epoch, batch.row)).rejected
        for epoch in (1, 2)
    )
    assert (first != second).any(1).float().mean() > 0.5
    assert len({tuple(row) for row in first.tolist()}) > 3


def test_row_seeds_are_distinct() -> None:
    """For every slate of every epoch of a run, and between runs of other seeds."""
    rows = torch.arange(20_000)
    every = torch.cat([row_seeds(seed, epoch, rows) for seed in range(4) for epoch in range(1, 13)])
    assert len(every.unique()) == 4 * 12 * 20_000
    assert row_seeds(5, 3, rows)[[7, 100]].tolist() == row_seeds(5, 3, rows[[7, 100]]).tolist()


def test_random_keys_are_prefixes_of_one_another() -> None:
    seed = torch.tensor([4, 9])
    assert torch.equal(random_keys(seed, 9)[:, :5], random_keys(seed, 5))
