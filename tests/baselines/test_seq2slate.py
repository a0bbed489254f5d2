"""Seq2Slate's teacher forcing and loss against plain ones."""

from __future__ import annotations

import math

import pytest
import torch

from tests.baselines.networks import inputs_of
from tests.model.tiny import SPEC as RICH
from tests.model.tiny import model_settings, random_batch
from training.baselines.seq2slate import Seq2Slate
from training.baselines.seq2slate_peer import clicked_first, step_loss, teacher_forced


def small_pointer() -> Seq2Slate:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made = Seq2Slate(RICH, model_settings())
        with torch.no_grad():
            for one in made.parameters():
                one += 0.3 * torch.randn_like(one)
    return made.eval().requires_grad_(False)


def test_teacher_forcing_is_what_decoding_sees() -> None:
    """Fed with its own list, each step's best free candidate is the next item of that list."""
    made = small_pointer()
    batch = random_batch([9, 4, 12, 1], seed=2)
    order, score = made(*inputs_of(batch))
    logits = teacher_forced(made, batch, order.long())
    for row, m in enumerate([9, 4, 12, 1]):
        free = torch.zeros(logits.size(2))
        for step in range(min(m, RICH.list_size)):
            log_p = (logits[row, step] + free).log_softmax(0)
            assert int(log_p.argmax()) == order[row, step]
            assert float(log_p.max()) == pytest.approx(float(score[row, step]), abs=1e-4)
            free[order[row, step]] = -1e9


@pytest.mark.parametrize("tail", [0.0, 0.3])
def test_step_loss_is_the_formula(tail: float) -> None:
    batch = random_batch([6, 5, 4], shown=[4, 3, 2], seed=4)
    lists, gain = clicked_first(batch)
    for row in range(3):
        known = dict(zip(batch.exposed[row].tolist(), batch.utility[row].tolist()))
        listed = [one for one in lists[row].tolist() if one >= 0]
        assert sorted(listed) == sorted(one for one in known if one >= 0)
        assert gain[row, : len(listed)].tolist() == [known[one] for one in listed]
        assert (
            gain[row, : len(listed)].tolist()
            == sorted(gain[row].tolist(), reverse=True)[: len(listed)]
        )
    logits = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    expected = 0.0
    for row, n in enumerate([4, 3, 2]):
        total = 0.0
        for step in range(n):
            free = [j for j in range(6) if j not in lists[row, :step].tolist()]
            norm = math.log(sum(math.exp(logits[row, step, j]) for j in free))
            clicked = [k for k in range(step, n) if gain[row, k] > 0]
            for k in clicked or [step]:
                share = 1 / len(clicked) if clicked else tail
                total -= share * (float(logits[row, step, lists[row, k]]) - norm)
        expected += total / n / 3
    assert float(step_loss(logits, lists, gain, tail)) == pytest.approx(expected, rel=1e-5)
