"""Log-probabilities of lists: a distribution over all of them, and what is masked."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.losses.lists import Lists, lists
from tests.losses.plain_losses import log_p
from tests.model.tiny import lively_model, padded, random_batch
from training.losses.likelihood import (
    chosen_before,
    list_log_probs,
    mean_over_lists,
    window_log_probs,
)


def test_chosen_before_by_hand() -> None:
    before = chosen_before(torch.tensor([[2, 0], [1, -1]]), 3).int().tolist()
    assert before[0] == [[0, 0, 0], [0, 0, 1], [1, 0, 1]]
    assert before[1] == [[0, 0, 0], [0, 1, 0], [0, 1, 0]]  # padding adds nothing, 0 neither


@given(lists())
def test_chosen_before_by_sets(made: Lists) -> None:
    candidates = made.logits_BNHM.size(-1)
    before = chosen_before(made.lists_BN, candidates)
    for row, y in enumerate(made.plain):
        for k in range(made.lists_BN.size(1) + 1):
            assert set(before[row, k].nonzero().flatten().tolist()) == set(y[:k])


@pytest.mark.parametrize("heads", [1, 2, 4, 8])
@pytest.mark.parametrize("cross", [True, False])
def test_probabilities_of_all_lists_sum_to_one(heads: int, cross: bool) -> None:
    """All 24 lists of 3 out of 4, under each factorisation of a policy; padding has no share."""
    model = lively_model(heads, cross)
    every = torch.tensor(list(permutations(range(4), 3)))
    batch = padded(random_batch([4], seed=2), 3)
    z, prior = model.encode(batch)
    z, prior = z.expand(24, -1, -1), prior.expand(24, -1)
    for block in {1, heads}:
        log_probs = list_log_probs(model.block_logits(z, prior, every, block), every)
        total = log_probs.double().sum(1).exp()
        assert float(total.sum()) == pytest.approx(1, abs=1e-5)
        assert float(total.max()) < 0.999  # not all on one: the sum says something
    shorter = torch.cat([every[:, :1], torch.full([24, 2], -1)], dim=1)
    one = list_log_probs(model.block_logits(z, prior, shorter), shorter)
    assert float(one[::6, 0].double().exp().sum()) == pytest.approx(1, abs=1e-5)
    assert (one[:, 1:] == 0).all()


@given(lists())
def test_list_log_probs_by_loops(made: Lists) -> None:
    got = list_log_probs(made.logits_BNHM[:, :, 0], made.lists_BN)
    for row, y in enumerate(made.plain):
        for k, item in enumerate(y):
            scores = made.logits_BNHM[row, k, 0].tolist()
            assert float(got[row, k]) == pytest.approx(log_p(scores, y[:k], item), abs=1e-4)
        assert (got[row, len(y) :] == 0).all()


@given(lists())
def test_window_log_probs_by_loops(made: Lists) -> None:
    got, valid = window_log_probs(made.logits_BNHM, made.lists_BN)
    for row, y in enumerate(made.plain):
        for t in range(made.lists_BN.size(1)):
            for i in range(made.heads):
                inside = t + i < len(y)
                assert bool(valid[row, t, i]) == inside
                expected = 0.0
                if inside:
                    scores = made.logits_BNHM[row, t, i].tolist()
                    expected = log_p(scores, y[: t + i], y[t + i])
                assert float(got[row, t, i]) == pytest.approx(expected, abs=1e-4)


def test_the_last_candidate_left_is_certain() -> None:
    logits = torch.tensor([[[3.0, -2.0], [50.0, -50.0]]])
    assert list_log_probs(logits, torch.tensor([[0, 1]]))[0, 1] == pytest.approx(0, abs=1e-6)


def test_every_list_weighs_the_same() -> None:
    values = torch.tensor([[[1.0, 3.0]], [[5.0, 100.0]], [[7.0, 7.0]]])
    valid = torch.tensor([[[True, True]], [[True, False]], [[False, False]]])
    assert float(mean_over_lists(values, valid)) == pytest.approx((2 + 5 + 0) / 3)


@given(lists(), st.integers(1, 3))
def test_a_batch_is_the_mean_of_its_equal_shards(made: Lists, copies: int) -> None:
    """What distributed training relies on."""
    log_probs, valid = window_log_probs(made.logits_BNHM, made.lists_BN)
    whole = mean_over_lists(log_probs.repeat(copies, 1, 1), valid.repeat(copies, 1, 1))
    shards = [mean_over_lists(row[None], ok[None]) for row, ok in zip(log_probs, valid)]
    torch.testing.assert_close(whole, torch.stack(shards).mean(), atol=1e-5, rtol=1e-5)
