"""Pairs of the policy's own lists, and the evaluator that ranks them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from contracts.features import Categorical, FeatureGroup
from tests.model.tiny import SPEC, cold, lively_model, one_row, padded, random_batch
from tests.pairs.evaluators import evaluator, logits
from training.data.batch import Batch
from training.decoding.omtp import OmtpDecode
from training.pairs.base import row_seeds
from training.pairs.drawing import draw_lists
from training.pairs.evaluator import Evaluator
from training.pairs.kinship import WINDOWS, Kinship
from training.pairs.policy import PolicyPairs
from training.settings import EvaluatorSettings, PairSettings

POLICY = lively_model(4)
shapes = st.lists(st.integers(1, 12), min_size=1, max_size=4)


class Constant(Evaluator):
    """Finds every list as good as any other."""

    def value(self, batch: Batch, lists_BLN: Tensor) -> Tensor:
        return torch.ones(lists_BLN.shape[:2])


@settings(max_examples=40)
@given(shapes, st.integers(0, 2**31), st.integers(1, 6))
def test_the_evaluators_best_against_its_worst(counts: list[int], seed: int, draws: int) -> None:
    batch = random_batch(counts, seed=seed)
    row_seed = row_seeds(0, 1, batch.row + seed)
    source = PolicyPairs(evaluator(), 5, PairSettings(draws=draws, temperature=1.0))
    pairs = source.pairs(batch, POLICY, row_seed)
    lists = draw_lists(POLICY, batch, 5, draws, 1.0, row_seed)
    assert lists.shape == (len(counts), draws + 1, 5)
    for row, m in enumerate(counts):
        alone = one_row(batch, row)
        values = {
            tuple(one.tolist()): float(evaluator().value(alone, one[None, None]))
            for one in lists[row]
        }
        chosen, rejected = tuple(pairs.chosen[row].tolist()), tuple(pairs.rejected[row].tolist())
        assert values[chosen] == pytest.approx(max(values.values()), abs=1e-4)
        assert values[rejected] == pytest.approx(min(values.values()), abs=1e-4)
        assert float(pairs.weight[row]) == float(chosen != rejected)
        for one in (chosen, rejected):
            assert sorted(set(one[: min(m, 5)])) == sorted(one[: min(m, 5)])
            assert one[min(m, 5) :] == (-1,) * (5 - min(m, 5))


@settings(max_examples=30)
@given(shapes, st.integers(0, 2**31), st.integers(0, 6))
def test_a_slates_pair_is_the_same_in_any_batch(counts: list[int], seed: int, more: int) -> None:
    batch = random_batch(counts, seed=seed)
    row_seed = row_seeds(0, 2, batch.row + seed)
    source = PolicyPairs(evaluator(), 5, PairSettings(draws=4, temperature=1.0))
    together = source.pairs(batch, POLICY, row_seed)
    wide = source.pairs(padded(batch, more), POLICY, row_seed)
    assert wide.chosen.tolist() == together.chosen.tolist()
    for row in range(len(counts)):
        alone = source.pairs(one_row(batch, row), POLICY, row_seed[row : row + 1])
        assert alone.chosen[0].tolist() == together.chosen[row].tolist()
        assert alone.rejected[0].tolist() == together.rejected[row].tolist()
        assert float(alone.weight) == float(together.weight[row])


def test_no_pair_where_all_values_are_equal() -> None:
    batch = random_batch([9] * 6)
    blind = Constant(SPEC, EvaluatorSettings())
    pairs = PolicyPairs(blind, 5, PairSettings(draws=4, temperature=1.0)).pairs(
        batch, POLICY, row_seeds(0, 1, batch.row)
    )
    assert pairs.weight.tolist() == [0.0] * 6


def test_no_pair_of_a_list_with_itself() -> None:
    """A policy that is sure draws one list again and again; rounding must not make a pair of it."""
    batch = random_batch([9] * 64, seed=2)

    class Jittery(Constant):
        def value(self, batch: Batch, lists_BLN: Tensor) -> Tensor:
            return 1 + 1e-6 * torch.arange(lists_BLN.size(1)).expand(lists_BLN.shape[:2])

    source = PolicyPairs(
        Jittery(SPEC, EvaluatorSettings()), 5, PairSettings(draws=6, temperature=1e-4)
    )
    pairs = source.pairs(batch, POLICY, row_seeds(0, 1, batch.row))
    same = (pairs.chosen == pairs.rejected).all(1)
    assert same.any()
    assert (pairs.weight[same] == 0).all()


def test_draws_hold_the_greedy_list_and_others() -> None:
    batch = random_batch([12] * 20, seed=1)
    lists = draw_lists(POLICY, batch, 6, 6, 1.5, row_seeds(0, 1, batch.row))
    greedy, _, _ = OmtpDecode(POLICY.decoder, 6)(*POLICY.encode(batch), *cold(20))
    assert lists[:, 0].tolist() == greedy.tolist()
    distinct = [len({tuple(one) for one in row}) for row in lists.tolist()]
    assert sum(distinct) / 20 > 3


def test_drawing_leaves_the_policy_as_it_was() -> None:
    policy = lively_model(2)
    batch = random_batch([5])
    for mode in (True, False):
        policy.train(mode)
        try:
            lists = draw_lists(policy, batch, 3, 2, 1.0, torch.tensor([1]))
            assert policy.training == mode
            assert not lists.requires_grad
        finally:
            policy.eval()


@settings(max_examples=40)
@given(shapes, st.integers(0, 2**31), st.integers(0, 4))
def test_value_is_the_sum_over_the_list_alone(counts: list[int], seed: int, more: int) -> None:
    """The same for a list alone and among others, and padding adds nothing."""
    batch = random_batch(counts, seed=seed)
    lists = torch.stack([batch.exposed, batch.exposed.roll(1, 1)], dim=1)
    lists[:, 1] = lists[:, 1].masked_fill(batch.exposed < 0, -1)
    lists[:, 1] = torch.where((batch.exposed >= 0) & (lists[:, 1] < 0), 0, lists[:, 1])
    wide = torch.cat([lists, torch.full([*lists.shape[:2], more], -1)], dim=2)
    value = evaluator().value(batch, wide)
    predicted = logits(batch, batch.exposed).sigmoid()
    expected = (predicted * (batch.exposed >= 0)).sum(1)
    torch.testing.assert_close(value[:, 0], expected, atol=1e-4, rtol=1e-4)
    for row in range(len(counts)):
        alone = one_row(batch, row)
        one = evaluator().value(alone, alone.exposed.unsqueeze(1))
        assert float(one) == pytest.approx(float(value[row, 0]), abs=1e-4)


def test_the_evaluator_sees_what_stands_before_and_not_after() -> None:
    batch = random_batch([8], seed=3)
    first, later = (logits(batch, torch.tensor([[0, 1, item, 3]])) for item in (2, 5))
    assert torch.equal(first[:, :2], later[:, :2])
    assert not torch.allclose(first[:, 3], later[:, 3], atol=1e-4)  # the same item after others


def test_a_discounted_value_counts_positions_as_dcg_does() -> None:
    batch = random_batch([8], seed=4)
    lists = torch.tensor([[[0, 1, 2, 3], [3, 2, 1, 0], [4, 5, -1, -1]]])
    value = evaluator("log").value(batch, lists)[0]
    for number, one in enumerate(lists[0]):
        p = logits(batch, one[None]).sigmoid()[0]
        expected = sum(
            float(p[k]) / math.log2(k + 2) for k, item in enumerate(one.tolist()) if item >= 0
        )
        assert float(value[number]) == pytest.approx(expected, rel=1e-4)


def test_kin_is_counted_by_window() -> None:
    """Colours a, b, a, a: what they are to those among the last 1, 2, 4 and 8 before them.

    First whether they are equal, then the product of their vectors: here b goes with a, and no
    other value with any.
    """
    colours = FeatureGroup(categorical=(Categorical(name="colour", width=4, buckets=6),))
    kinship = Kinship(colours, identity=None)
    with torch.no_grad():
        kinship.before[0].weight.zero_()
        kinship.before[0].weight[5, 0] = 2.0
        kinship.after[0].weight.zero_()
        kinship.after[0].weight[6, 0] = 3.0
    item_cat = torch.tensor([[[5], [6], [5], [5]]])
    shares = kinship.of_lists(item_cat, torch.tensor([[0, 1, 2, 3]]))[0]
    by_window = shares.view(4, len(WINDOWS), 2)
    assert by_window[..., 0].tolist() == [
        [0, 0, 0, 0],
        [0, 0, 0, 0],
        [0, 1 / 2, 1 / 4, 1 / 8],
        [1, 1 / 2, 2 / 4, 2 / 8],
    ]
    goes = [0.0] * 4
    assert by_window[..., 1].tolist() == [goes, [6, 6 / 2, 6 / 4, 6 / 8], goes, goes]


def test_an_identity_has_no_learned_kin() -> None:
    """Pairs of items are too many to learn; that an item stands there twice still counts."""
    made = evaluator()
    assert made.item_id == 0
    assert made.kinship.columns == 2 * SPEC.item.categorical_columns - 1
