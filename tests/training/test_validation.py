"""Held-out scores against plain loops over each slate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from training.checkpoint import load_checkpoint
from training.data.arrays import SlateArrays, load_slates
from training.decoding.omtp import OmtpDecode
from training.losses.likelihood import list_log_probs
from training.model.gen_reranker import GenReranker
from training.pairs.evaluator import Evaluator
from training.settings import EvaluatorSettings
from training.validation import Validation

CPU = torch.device("cpu")


@pytest.fixture
def policy(tiny_policy: Path) -> GenReranker:
    """The tiny policy shaken, so that its lists are its own and its heads disagree."""
    model = load_checkpoint(tiny_policy).model()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.decoder.query.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
        model.encoder.position_prior.mul_(0.2)
    return model


@pytest.fixture
def slates(tiny_data: Path, tiny_policy: Path) -> SlateArrays:
    return load_slates(tiny_data / "valid", load_checkpoint(tiny_policy).spec)


@torch.no_grad()
def greedy(model: GenReranker, slates: SlateArrays, block: int | None = None) -> list[list[int]]:
    decode = OmtpDecode(model.decoder, slates.spec.list_size, block)
    orders = []
    for row in range(len(slates)):
        z, prior = model.encode(slates.batch(np.array([row])))
        orders.append(decode(z, prior, torch.zeros(1, 1), torch.zeros(1, 1).long())[0][0].tolist())
    return orders


def test_scores_by_loops(policy: GenReranker, slates: SlateArrays) -> None:
    scores = Validation(policy, slates, CPU)()
    orders = greedy(policy, slates)
    n = slates.spec.list_size
    ndcgs, log_ps = [], []
    for row, order in enumerate(orders):
        shown, utility = slates.exposed[row].tolist(), slates.utility[row].tolist()
        gain = dict(zip(shown, (2**u - 1 for u in utility)))
        discount = [1 / np.log2(place + 2) for place in range(n)]
        found = sum(gain.get(item, 0.0) * d for item, d in zip(order, discount))
        ideal = sum(g * d for g, d in zip(sorted(gain.values(), reverse=True), discount))
        ndcgs.append(found / ideal if ideal else 0.0)
        batch = slates.batch(np.array([row]))
        with torch.no_grad():
            logits = policy.block_logits(*policy.encode(batch), batch.exposed)
        log_ps.append(float(list_log_probs(logits, batch.exposed).sum()))
    assert scores["ndcg"] == pytest.approx(np.mean(ndcgs))
    assert scores["logp_exposed"] == pytest.approx(np.mean(log_ps), rel=1e-4)
    moved = np.mean([[item != place for place, item in enumerate(order)] for order in orders])
    assert scores["moved"] == pytest.approx(moved)
    assert 0.1 < moved < 1
    assert scores["duplicates"] == 0
    assert 0 < scores["mass_unshown"] < 1
    assert "value" not in scores


def test_agreement_is_that_with_head_1_at_the_same_place(
    policy: GenReranker, slates: SlateArrays
) -> None:
    """Of the second of each block of two: what would head 1 have chosen, seeing the first?"""
    scores = Validation(policy, slates, CPU)()
    agreed = []
    for row, order in enumerate(greedy(policy, slates)):
        batch = slates.batch(np.array([row]))
        with torch.no_grad():
            z, prior = policy.encode(batch)
            for k in range(1, len(order), 2):
                lists = torch.tensor([order[: k + 1]])
                logits = policy.window_logits(z, prior, lists)[0][0, k, 0]
                logits[order[:k]] = -torch.inf
                agreed.append(int(logits.argmax()) == order[k])
    assert scores["agreement/head_2"] == pytest.approx(np.mean(agreed))
    assert 0 < np.mean(agreed) < 1


def test_a_judge_values_decoded_and_given_lists(policy: GenReranker, slates: SlateArrays) -> None:
    torch.manual_seed(0)
    judge = Evaluator(slates.spec, EvaluatorSettings(width=16, layers=1)).eval()
    scores = Validation(policy, slates, CPU, judge)()
    values = []
    for lists in (greedy(policy, slates), [list(range(slates.spec.list_size))] * len(slates)):
        value = [
            float(judge.value(slates.batch(np.array([row])), torch.tensor([[one]])))
            for row, one in enumerate(lists)
        ]
        values.append(np.mean(value))
    assert scores["value"] == pytest.approx(values[0], rel=1e-4)
    assert scores["value_gain"] == pytest.approx(values[0] - values[1], abs=1e-4)
    assert scores["value_gain"] != 0


def test_validation_leaves_the_model_as_it_was(policy: GenReranker, slates: SlateArrays) -> None:
    validation = Validation(policy, slates, CPU)
    first = validation()
    for mode in (True, False):
        policy.train(mode)
        assert validation() == first
        assert policy.training == mode
    assert all(parameter.grad is None for parameter in policy.parameters())
