"""L_n and L_o against examples worked by hand and against loops over all permutations."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.losses import plain_losses
from tests.losses.lists import Lists, lists, random_lists
from training.losses.omtp import next_items_loss, ordering_loss


def ln(x: float) -> float:
    return math.log(x)


def test_next_items_by_hand() -> None:
    """Two heads, the list (a, b) out of a, b, c.

    h_0: head 1 scores a, b, c as ln 1, ln 2, ln 1: p(a) = 1/4. Head 2, a being taken, scores b and
    c as ln 3, ln 2: p(b) = 3/5. h_1: head 1, a being taken, scores b, c as ln 1, ln 4: p(b) = 1/5.
    Head 2 has nothing left to say.
    """
    h_0 = [[ln(1), ln(2), ln(1)], [ln(100), ln(3), ln(2)]]
    h_1 = [[ln(100), ln(1), ln(4)], [0.0, 0.0, 0.0]]
    loss = next_items_loss(torch.tensor([[h_0, h_1]]), torch.tensor([[0, 1]]))
    assert float(loss) == pytest.approx(-(ln(1 / 4) + ln(3 / 5) + ln(1 / 5)) / 3, abs=1e-6)


def test_ordering_by_hand() -> None:
    """Two heads, the list (a, b) out of a, b, c, no feedback: (a, b) is better than (b, a).

    h_0: P(a, b) = 1/4 * 3/5 (head 2 without a: b, c at ln 3, ln 2) = 3/20, and
    P(b, a) = 2/4 * 5/7 (head 2 without b: a, c at ln 5, ln 2) = 5/14. At h_1 one item is left.
    -log sigmoid(ln x - ln y) = -ln(x / (x + y)).
    """
    h_0 = [[ln(1), ln(2), ln(1)], [ln(5), ln(3), ln(2)]]
    logits = torch.tensor([[h_0, [[0.0] * 3] * 2]])
    exposed, swapped = 3 / 20, 5 / 14
    lists_ = torch.tensor([[0, 1]])
    as_shown = float(ordering_loss(logits, lists_, None))
    assert as_shown == pytest.approx(-ln(exposed / (exposed + swapped)), abs=1e-6)
    # A click on b alone turns the preference round; one on a, or on both, does not.
    for gains, better in (([0, 1], swapped), ([1, 0], exposed), ([1, 1], exposed)):
        loss = float(ordering_loss(logits, lists_, torch.tensor([gains]).float()))
        assert loss == pytest.approx(-ln(better / (exposed + swapped)), abs=1e-6)


@settings(max_examples=60)
@given(lists())
def test_next_items_by_loops(made: Lists) -> None:
    expected = [
        plain_losses.next_items(made.logits_BNHM[row].tolist(), y, made.heads)
        for row, y in enumerate(made.plain)
    ]
    loss = float(next_items_loss(made.logits_BNHM, made.lists_BN))
    assert loss == pytest.approx(sum(expected) / len(expected), abs=1e-4)


@settings(max_examples=60)
@given(lists(), st.booleans())
def test_ordering_by_loops(made: Lists, by_feedback: bool) -> None:
    """Gains, ties of gains, windows that end with the list, lists shorter than a window."""
    expected = [
        plain_losses.ordering(
            made.logits_BNHM[row].tolist(), y, gains if by_feedback else None, made.heads
        )
        for row, (y, gains) in enumerate(zip(made.plain, made.gains))
    ]
    gain = made.gain_BN if by_feedback else None
    loss = float(ordering_loss(made.logits_BNHM, made.lists_BN, gain))
    assert loss == pytest.approx(sum(expected) / len(expected), abs=1e-4, rel=1e-4)


def test_five_heads_enumerated_and_sampled() -> None:
    made = random_lists([6], 8, 5, seed=3)
    inputs = made.logits_BNHM, made.lists_BN, made.gain_BN
    expected = plain_losses.ordering(made.logits_BNHM[0].tolist(), made.plain[0], made.gains[0], 5)
    assert float(ordering_loss(*inputs, max_permutations=120)) == pytest.approx(expected, rel=1e-4)
    generators = (torch.Generator().manual_seed(seed) for seed in (1, 1, 2))
    first, same, other = (
        float(ordering_loss(*inputs, max_permutations=24, generator=g)) for g in generators
    )
    assert first == same != other
    # A sample of 24 out of 120 estimates the mean over all.
    assert first == pytest.approx(expected, rel=0.5)


def test_one_head_has_nothing_to_order() -> None:
    made = random_lists([4, 0], 5, 1, seed=1)
    assert float(ordering_loss(made.logits_BNHM, made.lists_BN, made.gain_BN)) == 0


@pytest.mark.parametrize("heads", [6, 8])
@pytest.mark.parametrize("length", [2, 3, 5, 8, 10])
def test_large_windows_are_sampled_and_short_lists_still_learn(heads: int, length: int) -> None:
    """40,320 permutations of eight: a sample, which reaches the short windows too."""
    made = random_lists([length] * 3, 12, heads, seed=length)
    logits = made.logits_BNHM.requires_grad_()
    generator = torch.Generator().manual_seed(0)
    loss = ordering_loss(logits, made.lists_BN, made.gain_BN, 24, generator)
    assert torch.isfinite(loss)
    assert loss.item() > 0
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(gradient).all()
    # Every step whose window holds two items or more is trained.
    assert (gradient[:, : length - 1].abs().sum((0, 2, 3)) > 0).all()


def test_sampled_permutations_agree_with_all_of_them_on_a_short_window() -> None:
    """With enough draws the sample holds every permutation of a window of three."""
    made = random_lists([3], 5, 6, seed=4)
    generator = torch.Generator().manual_seed(0)
    loss = ordering_loss(made.logits_BNHM, made.lists_BN, None, 400, generator)
    expected = plain_losses.ordering(made.logits_BNHM[0].tolist(), made.plain[0], None, 6)
    assert float(loss) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("heads", [2, 4, 8])
def test_descent_on_l_o_puts_the_clicked_item_first(heads: int) -> None:
    """All items at the same score, a click on the last: the loss must prefer it."""
    logits = torch.zeros(1, 8, heads, 10, requires_grad=True)
    gains = torch.tensor([[0.0] * (heads - 1) + [1.0] + [0.0] * (8 - heads)])
    loss = ordering_loss(logits, torch.arange(8)[None], gains, 24, torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad(loss, logits)
    first = -gradient[0, 0, 0]  # where descent moves head 1 at h_0
    assert int(first.argmax()) == heads - 1


@given(lists(), st.booleans())
def test_losses_are_finite_with_finite_gradients_at_extreme_scores(
    made: Lists, by_feedback: bool
) -> None:
    logits = (made.logits_BNHM * 1e4).requires_grad_()
    gain = made.gain_BN if by_feedback else None
    loss = next_items_loss(logits, made.lists_BN) + ordering_loss(logits, made.lists_BN, gain)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()
