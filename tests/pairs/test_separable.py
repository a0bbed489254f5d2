"""Items and places apart: what a place adds is then the same for every item."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.model.tiny import random_batch
from tests.pairs.evaluators import evaluator
from training.pairs.ensemble import Ensemble
from training.pairs.separable import separable
from training.settings import PairSettings

N = 5


def first_logits(ensemble: Ensemble, place: int, seed: int) -> torch.Tensor:
    """What each of nine candidates would earn at a place, with nothing before it [B, M]."""
    (member,) = ensemble.evaluators()
    batch = random_batch([9, 9], seed=seed)
    items = member.items(batch)
    at = torch.full([9], place)
    nothing = torch.zeros(2, 9, member.repeats.in_features)
    x = member.enter(items, at, nothing)
    for layer in member.layers:
        x = layer(x, torch.eye(9).log())  # each candidate alone
    return member.leave(items, x, at)


@given(st.integers(0, 2**31), st.integers(1, N - 1))
def test_wholly_apart_a_place_adds_the_same_to_every_item(seed: int, place: int) -> None:
    apart = separable(Ensemble([evaluator()]), N, 1.0)
    added = first_logits(apart, place, seed) - first_logits(apart, 0, seed)
    torch.testing.assert_close(added, added[:1, :1].expand_as(added), atol=1e-4, rtol=1e-4)
    own = evaluator().place.weight
    assert float(added[0, 0]) == pytest.approx(float(own[place] - own[0]), abs=1e-4)
    fitted = Ensemble([evaluator()])
    differs = first_logits(fitted, place, seed) - first_logits(fitted, 0, seed)
    assert float(differs.std()) > 1e-3, "as fitted, it adds to some items more than to others"


def test_a_share_lies_between_and_nothing_else_is_moved() -> None:
    fitted = Ensemble([evaluator()])
    before = {name: value.clone() for name, value in fitted.state_dict().items()}
    assert separable(fitted, N, 0.0) is fitted
    half, whole = (separable(fitted, N, share) for share in (0.5, 1.0))
    for name, value in fitted.state_dict().items():
        assert torch.equal(value, before[name]), "the labeller that is reported on is as fitted"
        if name.endswith(".position.weight"):
            middle = (value[:N] + whole.state_dict()[name][:N]) / 2
            torch.testing.assert_close(half.state_dict()[name][:N], middle)
            torch.testing.assert_close(
                whole.state_dict()[name][:N], value[:N].mean(0).expand(N, -1)
            )
            assert torch.equal(half.state_dict()[name][N:], value[N:])
        else:
            assert torch.equal(half.state_dict()[name], value)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="separable"):
        PairSettings(separable=share)
