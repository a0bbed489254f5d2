"""Peers with rates: what they are given is counted from the training lists, and never their own."""

from __future__ import annotations

import numpy as np
import torch

from tests.baselines.toys import SPEC, fitted, merit_world, rerank_all
from training.baselines.base import PEERS
from training.baselines.with_rates import _wider, _with_rates
from training.pairs.rates import FOLDS, PRIOR, Rates


def test_the_added_columns_are_smoothed_rates_out_of_fold_for_the_lists_that_were_counted() -> None:
    train, valid = merit_world(60, 1), merit_world(20, 2)
    rates = Rates(SPEC)
    rates.add(train)
    wider = _wider(SPEC, rates.columns)
    assert [one.name for one in wider.item.dense] == ["merit", "rate_0"]
    for slates, own_fold in ((train, True), (valid, False)):
        rates.train(own_fold)
        made = _with_rates(slates, rates, wider)
        assert np.array_equal(made.item_dense[..., :2], slates.item_dense)
        assert not made.item_dense[..., 3].any(), "a rate is never missing"
        for row in (0, 7, 13):
            others = np.arange(len(train)) % FOLDS != row % FOLDS
            counted = others if own_fold else np.ones(len(train), bool)
            for item in range(slates.item_cat.shape[1]):
                colour = slates.item_cat[row, item, 0]
                shown = np.take_along_axis(train.item_cat[..., 0], train.exposed, 1)[counted]
                here = shown == colour
                mean = train.utility.mean()
                rate = (train.utility[counted][here].sum() + PRIOR * mean) / (here.sum() + PRIOR)
                wanted = (rate - mean) / float(rates.scale)
                assert np.isclose(made.item_dense[row, item, 2], wanted, atol=1e-4)


def test_a_request_needs_no_feedback_to_be_reranked() -> None:
    """Rates are looked up, not counted: what a request's own users did changes nothing."""
    for name in ("dnn-rates", "prm-rates"):
        made, asked = fitted(name, "merit")[0], merit_world(50, 9)
        batch = asked.batch(np.arange(50))
        other = asked.batch(np.arange(50))
        other.utility[:] = 1 - other.utility
        other.exposed[:] = other.exposed.flip(1)
        assert torch.equal(made.rerank(batch), made.rerank(other))
        assert made.parameters > fitted(name.split("-")[0], "merit")[0].parameters
        assert rerank_all(made, asked).shape == (50, SPEC.list_size)
        assert name in PEERS
