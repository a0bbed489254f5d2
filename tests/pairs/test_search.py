"""The evaluator's own list against a search in loops that evaluates whole prefixes."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.tiny import lively_model, one_row, padded, random_batch
from tests.pairs.evaluators import evaluator, logits
from training.data.batch import Batch
from training.pairs.base import row_seeds
from training.pairs.drawing import draw_lists
from training.pairs.ensemble import Ensemble
from training.pairs.policy import PolicyPairs
from training.pairs.search import search_lists
from training.settings import PairSettings

shapes = st.lists(st.integers(1, 9), min_size=1, max_size=4)


def scores_by_prefix(
    batch: Batch, prefix: list[int], free: list[int], candidate_layers: int
) -> list[float]:
    """What each free candidate would earn next, from the evaluator's look at the whole prefix."""
    return [
        float(logits(batch, torch.tensor([[*prefix, one]]), candidate_layers)[0, -1])
        for one in free
    ]


@settings(max_examples=40)
@given(shapes, st.integers(1, 7), st.integers(0, 2**31), st.integers(0, 4), st.integers(0, 1))
def test_each_item_is_the_best_next_one(
    counts: list[int], n: int, seed: int, more: int, candidate_layers: int
) -> None:
    batch = random_batch(counts, seed=seed)
    searched = Ensemble([evaluator(candidate_layers=candidate_layers)])
    lists, expected = search_lists(searched, padded(batch, more), n)
    assert expected.shape == (len(counts), n, max(counts) + more)
    assert lists.dtype == torch.int64
    for row, m in enumerate(counts):
        found = lists[row].tolist()
        real = found[: min(m, n)]
        assert sorted(set(real)) == sorted(real)
        assert found[len(real) :] == [-1] * (n - len(real))
        alone = one_row(batch, row)
        for k, item in enumerate(real):
            free = [j for j in range(m) if j not in real[:k]]
            scores = scores_by_prefix(alone, real[:k], free, candidate_layers)
            assert scores[free.index(item)] >= max(scores) - 1e-4
            torch.testing.assert_close(
                expected[row, k, free], torch.tensor(scores).sigmoid(), atol=1e-4, rtol=1e-3
            )


def test_the_searched_list_is_a_rival_of_the_draws() -> None:
    """By the slate's row, whatever the batch; where it is the best it is chosen."""
    policy, batch = lively_model(4), random_batch([9] * 12, seed=5)
    searched, _ = search_lists(Ensemble([evaluator()]), batch, 5)
    seeds = row_seeds(0, 1, batch.row)
    source = PolicyPairs(
        evaluator(), 5, PairSettings(draws=3, temperature=1.0), searched.numpy().astype(np.int64)
    )
    pairs = source.pairs(batch, policy, seeds)
    drawn = draw_lists(policy, batch, 5, 3, 1.0, seeds)
    rivals = torch.cat([drawn, searched.unsqueeze(1)], dim=1)
    values = evaluator().value(batch, rivals)
    best = values.argmax(1)
    assert (best == 4).float().mean() > 0.5
    for row in range(12):
        assert pairs.chosen[row].tolist() == rivals[row, best[row]].tolist()
        alone = source.pairs(one_row(batch, row), policy, seeds[row : row + 1])
        assert alone.chosen[0].tolist() == pairs.chosen[row].tolist()
