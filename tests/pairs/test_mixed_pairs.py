"""Pairs of two sources in one batch, and all lists of a slate against one another."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.model.tiny import lively_model, one_row, random_batch
from tests.pairs.evaluators import evaluator
from training.data.batch import Batch
from training.model.gen_reranker import GenReranker
from training.pairs.base import Pairs, row_seeds
from training.pairs.drawing import draw_lists
from training.pairs.mirrored import MirroredPairs
from training.pairs.mixed import MixedPairs
from training.pairs.policy import PolicyPairs, all_against_all, best_against_worst
from training.settings import PairSettings

POLICY = lively_model(2)
Pair = tuple[int, list[int], list[int], float]


class Marked:
    """``each`` pairs of every slate, of lists of one length that hold a mark and the slate's row.

    The row, not the place in the batch: pairs that go to another slate's row are then seen.
    """

    def __init__(self, mark: int, length: int, each: int = 1) -> None:
        self.mark = mark
        self.length = length
        self.each = each

    def pairs(self, batch: Batch, policy: GenReranker, seed: Tensor) -> Pairs:
        slate = torch.arange(batch.size).repeat_interleave(self.each)
        chosen = torch.full([len(slate), self.length], self.mark)
        chosen[:, 0] = batch.row[slate]
        weight = torch.full([len(slate)], self.mark / 8)
        return Pairs(chosen, chosen + 1, weight, None if self.each == 1 else slate)


def as_rows(pairs: Pairs) -> list[Pair]:
    """Each pair on its own, those of the first slate first."""
    parts = pairs.rows(), pairs.chosen, pairs.rejected, pairs.weight
    return sorted(zip(*(part.tolist() for part in parts)))


def from_the_second(mixed: MixedPairs, batch: Batch, seed: Tensor, mark: int) -> set[int]:
    """Slates whose pairs have the second source's mark."""
    pairs = mixed.pairs(batch, POLICY, seed)
    return set(pairs.rows()[pairs.chosen[:, 1] == mark].tolist())


def many(size: int) -> Batch:
    """Slates of two candidates."""
    return random_batch([2] * size)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.9])
def test_the_share_of_the_second_source(share: float) -> None:
    """In every epoch, of other slates each."""
    size = 4000
    batch, mixed = many(size), MixedPairs(Marked(3, 2), Marked(5, 2), share)
    first, second = (
        from_the_second(mixed, batch, row_seeds(0, epoch, batch.row), 5) for epoch in (1, 2)
    )
    error = (share * (1 - share) / size) ** 0.5
    for found in (first, second):
        assert abs(len(found) / size - share) <= 4 * error
    both = len(first & second) / size
    assert abs(both - share**2) <= 4 * (share**2 * (1 - share**2) / size) ** 0.5


def test_each_slate_has_the_pairs_of_one_source_in_its_own_row() -> None:
    """Sources may give several pairs a slate, and lists of other lengths: -1 fills them up."""
    batch = many(200)
    seed = row_seeds(0, 1, batch.row)
    for first, second in ((Marked(3, 2, 3), Marked(5, 4)), (Marked(3, 6), Marked(5, 4, 2))):
        mixed = MixedPairs(first, second, 0.4)
        others = from_the_second(mixed, batch, seed, 5)
        assert 0 < len(others) < 200
        pairs = mixed.pairs(batch, POLICY, seed)
        longest = max(first.length, second.length)
        expected: list[Pair] = []
        for row in range(200):
            source = second if row in others else first
            shown = [row] + [source.mark] * (source.length - 1)
            end = [-1] * (longest - source.length)
            one = (row, shown + end, [x + 1 for x in shown] + end, source.mark / 8)
            expected += [one] * source.each
        assert as_rows(pairs) == expected


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.integers(2, 6), st.sampled_from(["best_worst", "all"]))
def test_a_slates_pairs_depend_on_its_seed_alone(seed: int, size: int, compare: str) -> None:
    """With the real sources: the same alone and in a batch."""
    batch = random_batch([6, 9, 4, 7, 5, 8][:size], [4] * size, seed=seed)
    seeds = row_seeds(0, 1, batch.row + seed)
    pair_settings = PairSettings(draws=2, compare=compare)  # type: ignore[arg-type]
    source = PolicyPairs(evaluator(), 4, pair_settings)
    mixed = MixedPairs(source, MirroredPairs(1.0, 1.0), 0.5)
    together = as_rows(mixed.pairs(batch, POLICY, seeds))
    for row in range(size):
        alone = mixed.pairs(one_row(batch, row), POLICY, seeds[row : row + 1])
        expected = [one[1:] for one in together if one[0] == row]
        assert [one[1:] for one in as_rows(alone)] == expected
        assert len(expected) in (1, 3 if compare == "all" else 1)


@st.composite
def valued(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """A few lists a slate, often equal ones, and values, often equal ones too."""
    slates, lists = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    choices = torch.tensor([[0, 1, 2], [2, 1, 0], [1, -1, -1], [1, 0, -1]])
    which = torch.randint(0, 4, [slates, lists], generator=generator)
    value = torch.randint(0, 5, [slates, lists], generator=generator) / 4
    return choices[which], value


margins = st.sampled_from([0.0, 0.25, 0.3, 0.6])


def counts(better: float, worse: float, margin: float, chosen: object, rejected: object) -> float:
    return float(better > worse + margin and chosen != rejected)


@settings(max_examples=100)
@given(valued(), margins)
def test_all_against_all_by_loops(made: tuple[Tensor, Tensor], margin: float) -> None:
    lists, value = made
    pairs = all_against_all(lists, value, margin)
    expected: list[Pair] = []
    for row in range(len(lists)):
        for i, j in combinations(range(lists.size(1)), 2):
            # Of two equal ones the first.
            best, worst = (j, i) if value[row, j] > value[row, i] else (i, j)
            chosen, rejected = lists[row, best].tolist(), lists[row, worst].tolist()
            ahead = float(value[row, best]), float(value[row, worst])
            expected.append((row, chosen, rejected, counts(*ahead, margin, chosen, rejected)))
    got = zip(pairs.rows().tolist(), pairs.chosen.tolist(), pairs.rejected.tolist())
    assert [(*one, w) for one, w in zip(got, pairs.weight.tolist())] == expected
    assert pairs.chosen.shape == pairs.rejected.shape == (len(expected), 3)


@settings(max_examples=100)
@given(valued(), margins)
def test_best_against_worst_by_loops(made: tuple[Tensor, Tensor], margin: float) -> None:
    lists, value = made
    pairs = best_against_worst(lists, value, margin)
    assert pairs.rows().tolist() == list(range(len(lists)))
    for row, values in enumerate(value.tolist()):
        best, worst = values.index(max(values)), values.index(min(values))
        chosen, rejected = lists[row, best].tolist(), lists[row, worst].tolist()
        assert pairs.chosen[row].tolist() == chosen
        assert pairs.rejected[row].tolist() == rejected
        ahead = counts(max(values), min(values), margin, chosen, rejected)
        assert float(pairs.weight[row]) == ahead


def test_the_settings_decide_what_is_compared() -> None:
    """Six pairs of four lists where all are asked for; the margin reaches them."""
    batch = random_batch([9] * 5, seed=2)
    seeds = row_seeds(0, 1, batch.row)
    lists = draw_lists(POLICY, batch, 5, 3, 1.0, seeds)
    value = evaluator().value(batch, lists)
    gaps = (value.unsqueeze(1) - value.unsqueeze(2)).abs()
    margin = float(gaps[gaps > 0].median())

    def of(compare: str, margin: float) -> Pairs:
        made = PairSettings(draws=3, compare=compare, margin=margin)  # type: ignore[arg-type]
        return PolicyPairs(evaluator(), 5, made).pairs(batch, POLICY, seeds)

    assert len(of("all", 0.0).chosen) == 5 * 6
    assert as_rows(of("all", margin)) == as_rows(all_against_all(lists, value, margin))
    assert 0 < of("all", margin).weight.sum() < of("all", 0.0).weight.sum()
    assert as_rows(of("best_worst", margin)) == as_rows(best_against_worst(lists, value, margin))
