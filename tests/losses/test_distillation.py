"""Distillation against loops in numpy, and where nothing, or one candidate only, is left."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import pad

from training.losses.distillation import FAVOUR, distillation_loss
from training.model.layers import BLOCKED

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Taught:
    """Logits of a policy and scores of a teacher along lists; candidates beyond ``counts`` are
    padding, whose logits are blocked and whose scores are rubbish."""

    logits_BNM: Tensor
    lists_BN: Tensor
    scores_BNM: Tensor
    counts: list[int]

    def loss(self, temperature: float = 0.5) -> Tensor:
        return distillation_loss(self.logits_BNM, self.lists_BN, self.scores_BNM, temperature)


def make(counts: list[int], lengths: list[int], size: int, seed: int) -> Taught:
    rng = np.random.default_rng(seed)
    shape = len(counts), size, max(counts)
    logits = torch.from_numpy(rng.normal(0, 2, shape)).float()
    scores = torch.from_numpy(rng.normal(0, 2, shape)).float()
    lists = torch.full(shape[:2], -1)
    for row, (m, n) in enumerate(zip(counts, lengths)):
        lists[row, :n] = torch.from_numpy(rng.permutation(m)[:n])
        logits[row, :, m:] = BLOCKED
        scores[row, :, m:] = 50.0
    return Taught(logits, lists, scores, counts)


@st.composite
def taught(draw: st.DrawFn) -> Taught:
    counts = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    lengths = [draw(st.integers(0, m)) for m in counts]
    size = draw(st.integers(max(1, *lengths), 7))
    return make(counts, lengths, size, draw(st.integers(0, 2**31)))


def softmax(values: Floats) -> Floats:
    weight = np.exp(values - values.max())
    return np.asarray(weight / weight.sum(), np.float64)


def target(scores: Floats, own: int, temperature: float) -> Floats:
    """What the policy is taught of the free candidates, among which the list's item is ``own``."""
    raised = scores.copy()
    raised[own] = max(scores)
    raised = raised / temperature
    raised[own] += FAVOUR
    return softmax(raised)


def by_loops(made: Taught, temperature: float) -> float:
    per_list = []
    for row, m in enumerate(made.counts):
        terms: list[float] = []
        taken: list[int] = []
        for k, item in enumerate(made.lists_BN[row].tolist()):
            if item < 0:
                break
            free = [j for j in range(m) if j not in taken]
            policy = softmax(made.logits_BNM[row, k, free].double().numpy())
            scores = made.scores_BNM[row, k, free].double().numpy()
            wanted = target(scores, free.index(item), temperature)
            terms.append(-float((wanted * np.log(policy)).sum()))
            taken.append(item)
        per_list.append(float(np.mean(terms)) if terms else 0.0)
    return float(np.mean(per_list))


@settings(max_examples=80)
@given(taught(), st.sampled_from([0.1, 0.5, 1.0, 3.0]))
def test_by_loops(made: Taught, temperature: float) -> None:
    expected = by_loops(made, temperature)
    assert float(made.loss(temperature)) == pytest.approx(expected, abs=1e-4, rel=1e-4)


def test_by_hand() -> None:
    """The list (b, a) of a, b, c at temperature 1.

    At b the teacher has a, b, c at ln 4, ln 1, ln 2: b counts as a does, and times e^FAVOUR. The
    policy has ln 2, ln 1, ln 1. After b, a is the best at ln 6, c at ln 3; the policy: ln 1, ln 3.
    """
    ln = np.log
    scores = torch.tensor([[[ln(4), ln(1), ln(2)], [ln(6), 99.0, ln(3)]]]).float()
    logits = torch.tensor([[[ln(2), ln(1), ln(1)], [ln(1), 99.0, ln(3)]]]).float()
    more = np.exp(FAVOUR)
    total = 4 + 4 * more + 2
    first = -(4 * ln(1 / 2) + 4 * more * ln(1 / 4) + 2 * ln(1 / 4)) / total
    on_a = 6 * more / (6 * more + 3)
    second = -(on_a * ln(1 / 4) + (1 - on_a) * ln(3 / 4))
    loss = distillation_loss(logits, torch.tensor([[1, 0]]), scores, 1.0)
    assert float(loss) == pytest.approx((first + second) / 2, abs=1e-5)


@settings(max_examples=40)
@given(taught(), st.integers(0, 3), st.integers(0, 3))
def test_padding_changes_nothing(made: Taught, candidates: int, places: int) -> None:
    wide = Taught(
        pad(pad(made.logits_BNM, (0, candidates), value=BLOCKED), (0, 0, 0, places), value=3.0),
        pad(made.lists_BN, (0, places), value=-1),
        pad(made.scores_BNM, (0, candidates, 0, places), value=7.0),
        made.counts,
    )
    torch.testing.assert_close(wide.loss(), made.loss(), atol=1e-5, rtol=1e-5)


@given(taught(), st.sampled_from([1e-3, 0.1, 1.0]), st.sampled_from([1.0, 1e4]))
def test_finite_with_finite_gradients(made: Taught, temperature: float, scale: float) -> None:
    """Whatever the scores, where one candidate is left and where lists have ended."""
    free = made.logits_BNM > BLOCKED / 2
    logits = torch.where(free, made.logits_BNM * scale, made.logits_BNM).requires_grad_()
    loss = distillation_loss(logits, made.lists_BN, made.scores_BNM * scale, temperature)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()
    assert (gradient[~free] == 0).all()
    assert (gradient[made.lists_BN < 0] == 0).all()


def test_the_last_candidate_left_teaches_nothing() -> None:
    made = make([3, 1], [3, 1], 3, seed=5)
    logits = made.logits_BNM.requires_grad_()
    (gradient,) = torch.autograd.grad(made.loss(), logits)
    assert gradient[0, 2].abs().max() < 1e-6
    assert gradient[1].abs().max() < 1e-6
    assert (gradient[0, :2].abs().amax(1) > 1e-3).all()


def test_the_minimum_is_the_target() -> None:
    """There the gradient is 0; a step away, whichever way, the loss is higher."""
    made = make([5, 4], [5, 3], 5, seed=2)
    best = made.logits_BNM.clone()
    for row, m in enumerate(made.counts):
        items = [item for item in made.lists_BN[row].tolist() if item >= 0]
        for k, item in enumerate(items):
            free = [j for j in range(m) if j not in items[:k]]
            scores = made.scores_BNM[row, k, free].double().numpy()
            wanted = target(scores, free.index(item), 0.5)
            best[row, k, free] = torch.from_numpy(np.log(wanted)).float() + 0.3 * k
    best.requires_grad_()

    def loss(logits: Tensor) -> Tensor:
        return distillation_loss(logits, made.lists_BN, made.scores_BNM, 0.5)

    (gradient,) = torch.autograd.grad(loss(best), best)
    assert gradient.abs().max() < 1e-6
    least = float(loss(best.detach()))
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        aside = best.detach() + 0.5 * torch.randn(best.shape, generator=generator)
        assert float(loss(aside)) > least + 1e-4


def test_near_temperature_0_the_best_item_alone_counts() -> None:
    """The list's own item is better still; every other one is left with nothing."""
    logits = torch.zeros(1, 1, 4)
    scores = torch.tensor([[[0.1, 0.9, 0.2, 0.3]]])
    logits.requires_grad_()
    best = 1 / (1 + np.exp(FAVOUR))
    for own, shares in ((1, [0, 1, 0, 0]), (2, [0, best, 1 - best, 0])):
        loss = distillation_loss(logits, torch.tensor([[own]]), scores, 1e-4)
        (gradient,) = torch.autograd.grad(loss, logits)
        wanted = 0.25 - gradient[0, 0]
        torch.testing.assert_close(wanted, torch.tensor(shares).float(), atol=1e-5, rtol=0)
