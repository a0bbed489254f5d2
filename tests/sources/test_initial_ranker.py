"""The stand-in for the previous stage, and the measures of an order, against scikit-learn."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score, roc_auc_score

from tests.sources.made_slates import slate
from training.sources.initial_ranker import (
    RankerSettings,
    Rows,
    area_under_curve,
    rank_scores,
    train_ranker,
)
from training.sources.order_quality import OrderQuality, ndcg

FAST = RankerSettings(width=8, hidden=(16,), learning_rate=1e-2, batch_size=256, epochs=6)
SIZES = [20, 15]


def sample(seed: int, size: int) -> tuple[Rows, np.ndarray, np.ndarray]:
    """Rows whose label depends on a category, on a pair of categories, and on a number."""
    world = np.random.default_rng(0)
    effect, left, right = (
        world.normal(size=20),
        world.normal(size=(20, 3)),
        world.normal(size=(15, 3)),
    )
    rng = np.random.default_rng(seed)
    codes = np.stack([rng.integers(size_, size=size) for size_ in SIZES], axis=1)
    numbers = rng.normal(size=(size, 2))
    numbers[::7, 1] = np.nan
    logit = effect[codes[:, 0]] + (left[codes[:, 0]] * right[codes[:, 1]]).sum(1) + numbers[:, 0]
    labels = (rng.random(size) < 1 / (1 + np.exp(-logit))).astype(float)
    return Rows(codes, numbers), labels, logit


def test_it_learns_and_is_reproducible() -> None:
    rows, labels, _ = sample(1, 16_000)
    fresh, fresh_labels, truth = sample(2, 4000)
    before = torch.random.get_rng_state()
    ranker = train_ranker(rows, labels, SIZES, FAST)
    assert torch.equal(before, torch.random.get_rng_state())  # callers' randomness is their own
    scores = rank_scores(ranker, fresh)
    assert np.isfinite(scores).all()
    best = area_under_curve(truth, fresh_labels)
    assert area_under_curve(scores, fresh_labels) > best - 0.06
    again = rank_scores(train_ranker(rows, labels, SIZES, FAST), fresh)
    np.testing.assert_array_equal(scores, again)
    other = msgspec.structs.replace(FAST, seed=2)
    assert not np.array_equal(scores, rank_scores(train_ranker(rows, labels, SIZES, other), fresh))


def test_a_row_scores_the_same_alone_and_in_any_batch() -> None:
    rows, labels, _ = sample(1, 500)
    ranker = train_ranker(rows, labels, SIZES, FAST)
    whole, parts = rank_scores(ranker, rows), rank_scores(ranker, rows, batch_size=7)
    np.testing.assert_allclose(whole, parts, atol=1e-5)
    assert rank_scores(ranker, Rows(rows.categories[:0], rows.numbers[:0])).shape == (0,)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=40))
def test_area_under_curve_is_scikit_learns(drawn: list[tuple[int, bool]]) -> None:
    scores, labels = np.array(drawn, float).T
    if 0 < labels.sum() < len(labels):
        assert area_under_curve(scores, labels) == pytest.approx(roc_auc_score(labels, scores))
    else:
        assert np.isnan(area_under_curve(scores, labels))


@given(st.lists(st.booleans(), min_size=2, max_size=12).filter(any))
def test_ndcg_is_scikit_learns(drawn: list[bool]) -> None:
    gains = np.array(drawn, float)
    order = np.arange(len(gains), 0, -1)
    assert ndcg(gains) == pytest.approx(ndcg_score([gains], [order]))


def test_order_quality_by_hand() -> None:
    """Exposed (2, 0), the click on candidate 2: first in exposure, behind candidate 0 as given."""
    quality = OrderQuality()
    quality.add(slate(0, 0), "click")
    quality.add(slate(1, 0, feedback=()), "click")
    facts = quality.facts("test")
    assert facts["test/ndcg/exposure_order"] == pytest.approx(1.0)
    assert facts["test/ndcg/given_order"] == pytest.approx(1 / np.log2(3))
    # Scores 0 and -2, twice; the one click has the lower score: beaten twice, tied once.
    assert facts["test/auc/score"] == pytest.approx(0.5 / 3)
    assert OrderQuality().facts("test") == {}
