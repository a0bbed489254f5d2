"""Rerank-DPO against Eq. 8 by hand, against plain numbers, and where its gradient points."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.losses import plain_losses
from training.losses.dpo import PairLogProbs, lengths, rerank_dpo_loss
from training.settings import PostTrainSettings

NAMES = ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")


def post(**changes: Any) -> PostTrainSettings:
    return PostTrainSettings(**{"likelihood": "none", **changes})


def pair(
    policy: tuple[list[float], list[float]], reference: tuple[list[float], list[float]]
) -> tuple[PairLogProbs, Tensor, Tensor]:
    """One pair; items at the end with log p of exactly 0 are padding."""
    rows = [torch.tensor([values]) for values in (*policy, *reference)]
    sizes = [(row != 0).sum(1) for row in rows[:2]]
    return PairLogProbs(*rows), sizes[0], sizes[1]


def test_equation_8_by_hand() -> None:
    """log ratios of +1 (chosen) and -2 (rejected), beta 0.1: -log sigmoid(0.3)."""
    inputs = pair(([-1.0, -2.0], [-4.0, -3.0]), ([-2.0, -2.0], [-2.5, -2.5]))
    loss, logs = rerank_dpo_loss(*inputs, torch.ones(1), post(beta=0.1))
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-0.3)), abs=1e-6)
    expected = {
        "rewards/chosen": 0.1,
        "rewards/rejected": -0.2,
        "rewards/margins": 0.3,
        "rewards/accuracies": 1.0,
        "logps/chosen": -3.0,
        "logps/rejected": -7.0,
        "logps/chosen_fall": -1.0,
    }
    assert {name: float(value) for name, value in logs.items()} == pytest.approx(expected)


def test_label_smoothing_by_hand() -> None:
    """A tenth of the pairs taken to be the wrong way round (conservative DPO)."""
    inputs = pair(([-1.0], [-2.0]), ([-3.0], [-2.0]))
    loss, _ = rerank_dpo_loss(*inputs, torch.ones(1), post(beta=0.5, label_smoothing=0.1))
    right, wrong = math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))
    assert float(loss) == pytest.approx(0.9 * right + 0.1 * wrong, abs=1e-6)


def test_nll_by_hand() -> None:
    """Mean negative log-probability of the chosen list's items: (1 + 2) / 2 nats, weight 0.4."""
    inputs = pair(([-1.0, -2.0], [-1.0, -2.0]), ([-1.0, -2.0], [-1.0, -2.0]))
    loss, _ = rerank_dpo_loss(*inputs, torch.ones(1), post(likelihood="nll", likelihood_weight=0.4))
    assert float(loss) == pytest.approx(math.log(2) + 0.4 * 1.5, abs=1e-6)


def test_dpop_by_hand() -> None:
    """The chosen list fell by 2 nats, the rejected by 5: the margin of 3 loses 0.5 * 2."""
    inputs = pair(([-6.0], [-9.0]), ([-4.0], [-4.0]))
    settings = post(beta=0.2, likelihood="dpop", likelihood_weight=0.5)
    loss, logs = rerank_dpo_loss(*inputs, torch.ones(1), settings)
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-0.2 * (3 - 1))), abs=1e-6)
    assert float(logs["rewards/margins"]) == pytest.approx(0.6)  # as the field logs it
    # A chosen list that rose is not penalised.
    risen = pair(([-3.0], [-9.0]), ([-4.0], [-4.0]))
    loss, _ = rerank_dpo_loss(*risen, torch.ones(1), settings)
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-0.2 * 6)), abs=1e-6)


def test_lists_of_different_lengths_in_one_batch() -> None:
    """By sum a long list weighs more; by mean both log ratios are per item."""
    long = pair(([-1.0] * 4, [-2.0] * 4), ([-1.5] * 4, [-1.5] * 4))
    short = pair(([-1.0, 0, 0, 0], [-2.0, 0, 0, 0]), ([-1.5, 0, 0, 0], [-1.5, 0, 0, 0]))
    both = PairLogProbs(*(torch.cat([getattr(one[0], n) for one in (long, short)]) for n in NAMES))
    sizes = torch.tensor([4, 1])
    for length, margins in (("sum", (0.4, 0.1)), ("mean", (0.1, 0.1))):
        loss, logs = rerank_dpo_loss(
            both, sizes, sizes, torch.ones(2), post(beta=0.1, length=length)
        )
        expected = sum(math.log(1 + math.exp(-margin)) for margin in margins) / 2
        assert float(loss) == pytest.approx(expected, abs=1e-6)
        assert float(logs["rewards/margins"]) == pytest.approx(sum(margins) / 2)


@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(0, 1)), min_size=1, max_size=5
    ),
    st.floats(0.01, 2),
    st.floats(0, 0.49),
    st.sampled_from(("none", "nll", "dpop")),
    st.floats(0, 2),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_against_plain_numbers(
    shapes: list[tuple[int, int, int]],
    beta: float,
    smooth: float,
    likelihood: Any,
    weight: float,
    mean: bool,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    log_p = -3 * torch.rand([4, len(shapes), 5], generator=generator)
    sizes = torch.tensor([shape[:2] for shape in shapes])
    for which in range(4):
        log_p[which] *= torch.arange(5) < sizes[:, which % 2 :][:, :1]
    has_pair = torch.tensor([float(shape[2]) for shape in shapes])
    settings = post(
        beta=beta,
        label_smoothing=smooth,
        likelihood=likelihood,
        likelihood_weight=weight,
        length="mean" if mean else "sum",
    )
    loss, _ = rerank_dpo_loss(PairLogProbs(*log_p), sizes[:, 0], sizes[:, 1], has_pair, settings)
    total = log_p.sum(2).tolist()
    expected = [
        shape[2]
        * plain_losses.rerank_dpo(
            (total[0][row], total[1][row]),
            (total[2][row], total[3][row]),
            shape[:2],
            beta=beta,
            smooth=smooth,
            likelihood=likelihood,
            weight=weight,
            mean=mean,
        )
        for row, shape in enumerate(shapes)
    ]
    assert float(loss) == pytest.approx(sum(expected) / len(expected), abs=1e-4, rel=1e-4)


def test_slates_without_a_pair_do_not_count() -> None:
    """Neither in the loss and its gradient, nor in what is logged."""
    rows = torch.tensor([[-1.0, -2.0], [-30.0, -40.0]], requires_grad=True)
    log_probs = PairLogProbs(rows, rows * 2, rows.detach() + 1, rows.detach() - 1)
    sizes = torch.tensor([2, 2])
    settings = post(likelihood="nll", likelihood_weight=0.3)
    loss, logs = rerank_dpo_loss(log_probs, sizes, sizes, torch.tensor([1.0, 0.0]), settings)
    (gradient,) = torch.autograd.grad(loss, rows)
    assert (gradient[1] == 0).all()
    assert (gradient[0] != 0).any()
    assert float(logs["logps/chosen"]) == pytest.approx(-3.0)
    loss, logs = rerank_dpo_loss(log_probs, sizes, sizes, torch.zeros(2), settings)
    assert loss.item() == 0
    assert all(float(value) == 0 for value in logs.values())


@pytest.mark.parametrize("length", ["sum", "mean"])
@pytest.mark.parametrize("likelihood", ["none", "nll", "dpop"])
def test_descent_raises_the_chosen_list_and_lowers_the_rejected(
    length: Any, likelihood: Any
) -> None:
    policy = torch.tensor([[-2.0, -2.0], [-2.5, -2.5]], requires_grad=True)
    log_probs = PairLogProbs(
        policy[:1], policy[1:], torch.full([1, 2], -1.5), torch.full([1, 2], -2.0)
    )
    two = torch.tensor([2])
    settings = post(length=length, likelihood=likelihood, likelihood_weight=0.5)
    loss, _ = rerank_dpo_loss(log_probs, two, two, torch.ones(1), settings)
    (gradient,) = torch.autograd.grad(loss, policy)
    assert (gradient[0] < 0).all()
    assert (gradient[1] > 0).all()


@pytest.mark.parametrize("likelihood", ["nll", "dpop"])
def test_a_likelihood_term_holds_the_chosen_list_up(likelihood: Any) -> None:
    """Where both fell alike, plain DPO pushes them apart only; the term adds to the chosen side."""
    policy = torch.tensor([[-5.0], [-5.0]], requires_grad=True)
    reference = torch.full([1, 1], -2.0)
    one = torch.tensor([1])
    pulls = {}
    for name in ("none", likelihood):
        settings = post(likelihood=name, likelihood_weight=1.0)
        log_probs = PairLogProbs(policy[:1], policy[1:], reference, reference)
        loss, _ = rerank_dpo_loss(log_probs, one, one, torch.ones(1), settings)
        (gradient,) = torch.autograd.grad(loss, policy)
        pulls[name] = -float(gradient[0])
    assert pulls[likelihood] > 1.5 * pulls["none"] > 0


def test_an_extreme_margin_stays_finite() -> None:
    for sign in (1, -1):
        rows = torch.tensor([[-5000.0 * sign]], requires_grad=True)
        log_probs = PairLogProbs(rows, -rows, torch.zeros(1, 1), torch.zeros(1, 1))
        one = torch.tensor([1])
        loss, _ = rerank_dpo_loss(log_probs, one, one, torch.ones(1), post(beta=1.0))
        (gradient,) = torch.autograd.grad(loss, rows)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()


def test_lengths() -> None:
    assert lengths(torch.tensor([[3, 0, -1], [-1, -1, -1], [0, 1, 2]])).tolist() == [2, 0, 3]
