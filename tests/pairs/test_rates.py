"""Rates: counted right, out of fold for what is learned from, and carried from model to model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.baselines.toys import SPEC, repeats_world
from training.data.arrays import SlateArrays
from training.pairs.rates import FOLDS, KEPT, PRIOR, Rates

Rows = np.ndarray


def of(slates: SlateArrays) -> Rates:
    rates = Rates(SPEC)
    rates.add(slates)
    return rates


def plain(rates: Rates, slates: SlateArrays) -> torch.Tensor:
    """Rates of all slates [S, M, K] on their own scale."""
    batch = slates.batch(np.arange(len(slates)))
    return rates(batch.item_cat, batch.user_cat, batch.row) * rates.scale + rates.mean


def test_rates_are_out_of_fold_for_the_slates_that_are_learned_from() -> None:
    slates = repeats_world(200, 4)
    rates = of(slates)
    found, served = plain(rates.train(), slates), plain(rates.eval(), slates)
    mean = slates.utility.mean()
    colours = np.take_along_axis(slates.item_cat[..., 0], slates.exposed, 1)
    for row in (0, 7, 199):
        for candidate in (0, 5):
            colour = slates.item_cat[row, candidate, 0]
            for value, rows in (
                (found[row, candidate, 0], np.arange(200) % FOLDS != row % FOLDS),
                (served[row, candidate, 0], np.ones(200, bool)),
            ):
                same = colours[rows] == colour
                sums = (slates.utility[rows] * same).sum() + PRIOR * mean
                assert float(value) == pytest.approx(sums / (same.sum() + PRIOR), rel=1e-4)


@given(row=st.integers(0, 59), flips=st.integers(1, 2**10))
def test_no_slate_sees_its_own_feedback(row: int, flips: int) -> None:
    slates = repeats_world(60, 4)
    turned = repeats_world(60, 4)
    bits = np.array([(flips >> bit) & 1 for bit in range(slates.utility.shape[1])], bool)
    turned.utility[row, bits] = 1 - turned.utility[row, bits]
    rates = [of(one).train() for one in (slates, turned)]
    for one in rates:  # the mean that all begin with knows every slate
        one.mean.fill_(0.5)
    before, after = (plain(one, slates)[row] for one in rates)
    assert torch.allclose(before, after, atol=1e-6)


def test_earlier_counts_weigh_less_once_newer_slates_are_added() -> None:
    first, second = repeats_world(80, 1), repeats_world(80, 2)
    both = of(first)
    both.add(second)
    for name, kept in of(first).state_dict().items():
        if name.startswith(("sums_", "counts_")):
            new = of(second).state_dict()[name]
            assert torch.allclose(both.state_dict()[name], KEPT * kept + new)
    assert torch.equal(both.scale, of(first).scale)  # what reads rates has learned it


def test_saved_with_the_model_that_reads_them() -> None:
    slates = repeats_world(80, 1)
    rates, loaded = of(slates).eval(), Rates(SPEC).eval()
    loaded.load_state_dict(rates.state_dict())
    assert torch.equal(plain(rates, slates), plain(loaded, slates))


def test_unknown_categories_count_as_missing_and_large_tables_are_left_out() -> None:
    slates = repeats_world(80, 1)
    rates = of(slates).eval()
    batch = slates.batch(np.arange(4))
    beyond = torch.full_like(batch.item_cat, 10**6)
    found = rates(beyond, batch.user_cat, batch.row)
    assert torch.equal(found, rates(torch.zeros_like(beyond), batch.user_cat, batch.row))
    assert torch.isfinite(found).all()
    single = [key for key in rates.keys if key[0] < 0]
    assert Rates(SPEC, largest=0).keys == single
