"""Edge-Rerank's beam against all permutations."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.tiny import SPEC as RICH
from tests.model.tiny import one_row, random_batch
from training.baselines.edge_rerank import beam_search
from training.pairs.ensemble import Ensemble
from training.pairs.evaluator import Evaluator
from training.pairs.search import search_lists
from training.settings import EvaluatorSettings

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
    found = beam_search(Ensemble([model]), batch, 3, beam=60)[0]
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
    greedy = search_lists(Ensemble([model]), batch, 4)[0][:, : min(4, max(counts))]
    assert torch.equal(beam_search(Ensemble([model]), batch, 4, beam=1)[0], greedy)
    assert torch.equal(beam_search(Ensemble([model]), batch, 4, beam=5, stable=0.0)[0], greedy)


def test_a_wider_beam_is_worth_more_and_stops_where_it_is_told() -> None:
    model, batch = lively_evaluator(), random_batch([12] * 60, seed=1)
    alone = Ensemble([model])
    lists = [beam_search(alone, batch, 6, *how)[0] for how in ((1, 2.0), (8, 0.9), (8, 2.0))]
    worth = [float(alone.value(batch, one.unsqueeze(1)).mean()) for one in lists]
    assert worth[0] < worth[1] < worth[2]
