"""Examination estimated from a log, in worlds where its true eta is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import optimize

from contracts.datasets import read_dataset
from contracts.reading import ContractError
from tests.training.runs import WORLD, make_data
from training.data.arrays import SlateArrays, load_slates
from training.pairs.base import sort_exposed
from training.pairs.examination import _loss_and_gradient, estimate_examination

pytestmark = pytest.mark.timeout(120)

Log = Callable[..., SlateArrays]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    def make(lists: int = 3000, **changes: float) -> SlateArrays:
        world = {**WORLD, "users": 400, "list_size": 8, **changes}
        data = make_data(tmp_path_factory.mktemp("log"), lists, world=world)
        return load_slates(data / "train", read_dataset(data)[1])

    return make


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_eta_is_found(log: Log, eta: float) -> None:
    found = estimate_examination(log(position_bias=eta))
    assert found.usable, found.why
    # What tires the eye is seen by its category alone, hence a little too steep.
    assert abs(found.eta - eta) < 0.15
    assert found.low < found.eta < found.high
    assert found.usable_eta() >= 0


def test_the_interval_holds_the_truth_where_the_model_is_right(log: Log) -> None:
    """Feedback drawn from the model itself: k^-eta * sigmoid(w . x), 40 logs."""
    inside, slates = 0, log(lists=1000)
    for seed in range(40):
        found = estimate_examination(_drawn(slates, seed, eta=0.7))
        assert found.usable
        inside += found.low <= 0.7 <= found.high
    assert inside >= 34  # 38 expected; fewer than 34 of 40 by chance: 1 in 70


def test_the_gradient_is_that_of_finite_differences() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([np.ones((50, 1)), rng.normal(size=(50, 3))], axis=1)
    log_k, liked = np.log(rng.integers(1, 9, 50)), (rng.random(50) < 0.4).astype(float)
    at = rng.normal(size=5) * 0.3
    _, gradient = _loss_and_gradient(at, x, log_k, liked, 1.0)
    numeric = optimize.approx_fprime(
        at, lambda p: _loss_and_gradient(p, x, log_k, liked, 1.0)[0], 1e-7
    )
    assert gradient == pytest.approx(numeric, rel=1e-3, abs=1e-3)


def test_where_features_decide_the_position_it_says_so(log: Log) -> None:
    slates = log(lists=1500)
    # The score becomes the position itself: nothing was ever swapped.
    dense = slates.item_dense.copy()
    rows = np.arange(len(slates))
    for place in range(slates.exposed.shape[1]):
        dense[rows, slates.exposed[:, place], 0] = -np.log(place + 1)
    found = estimate_examination(replace(slates, item_dense=dense))
    assert not found.usable
    assert "nothing was swapped" in found.why
    with pytest.raises(ContractError, match=r"cannot be estimated.*give eta"):
        found.usable_eta()


def test_few_slates_or_no_feedback_are_not_usable(log: Log) -> None:
    slates = log(lists=300)
    few = estimate_examination(slates.take(np.arange(20)))
    assert not few.usable
    nothing = replace(slates, feedback=np.zeros_like(slates.feedback))
    assert not estimate_examination(nothing).usable


def test_inverse_propensity_moves_a_late_click_before_an_early_one() -> None:
    exposed = torch.tensor([[4, 2, 7, 1]])
    utility = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    assert sort_exposed(exposed, utility, 1.0, 1.0).tolist() == [[4, 1, 2, 7]]
    # 1 + 1 for the first; 1/4 + 4^1 for the last, whose position is looked at a quarter as often.
    assert sort_exposed(exposed, utility, 1.0, 1.0, 1.0).tolist() == [[1, 4, 2, 7]]


def _drawn(slates: SlateArrays, seed: int, eta: float) -> SlateArrays:
    rng = np.random.default_rng(seed)
    size = slates.exposed.shape[1]
    item = np.take_along_axis(slates.item_dense[:, :, 2], slates.exposed, axis=1)
    p = np.arange(1.0, size + 1) ** -eta / (1 + np.exp(-item))
    feedback = np.zeros_like(slates.feedback)
    feedback[:, :, 0] = rng.random(p.shape) < p
    return replace(slates, feedback=feedback)
