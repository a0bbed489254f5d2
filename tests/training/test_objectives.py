"""The objectives: which lists they learn from, what they log, and what must not move."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import softmax

from tests.model.tiny import SPEC, lively_model, model_settings, random_batch
from training.data.batch import Batch
from training.losses.likelihood import list_log_probs
from training.model.gen_reranker import GenReranker
from training.objectives import (
    PretrainObjective,
    RerankDpoObjective,
    mass_on_unshown,
    pointwise_loss,
)
from training.pairs.base import Pairs, row_seeds
from training.pairs.exposure import ExposurePairs
from training.pairs.mirrored import MirroredPairs
from training.pairs.search import Searched
from training.settings import OptimSettings, PostTrainSettings, PretrainSettings


def fresh(seed: int = 0, **changes: object) -> GenReranker:
    torch.manual_seed(seed)
    return GenReranker(SPEC, model_settings(**changes))


def pretraining(model: GenReranker, **changes: object) -> PretrainObjective:
    return PretrainObjective(model, PretrainSettings(**changes), list_size=4, seed=0)


BATCH = random_batch([6, 9, 4, 9], [3, 5, 4, 2], seed=3)


def test_the_first_epochs_learn_the_given_order_and_the_others_the_shown() -> None:
    """The given order is that of all candidates: what was shown must not matter there."""
    objective = pretraining(fresh(), given_epochs=2, lambda_o=0.5)
    other = replace(BATCH, exposed=BATCH.exposed.flip(0), utility=1 - BATCH.utility)
    for epoch, alike in ((1, True), (2, True), (3, False)):
        first, second = (float(objective(one, epoch)[0].detach()) for one in (BATCH, other))
        assert (first == second) == alike


def test_feedback_orders_windows_only_where_it_is_asked_for() -> None:
    clicked = replace(BATCH, utility=torch.rand(BATCH.utility.shape).round())
    for score, alike in (("exposure", True), ("feedback", False)):
        objective = pretraining(fresh(), given_epochs=0, order_score=score, lambda_o=1.0)
        losses = [float(objective(one, 1)[1]["L_o"]) for one in (BATCH, clicked)]
        assert (losses[0] == losses[1]) == alike


def test_the_loss_is_the_weighted_sum_of_what_is_logged() -> None:
    objective = pretraining(
        fresh(), given_epochs=0, lambda_n=0.7, lambda_o=0.3, lambda_pointwise=0.2
    )
    loss, scalars = objective(BATCH, 1)
    expected = 0.7 * scalars["L_n"] + 0.3 * scalars["L_o"] + 0.2 * scalars["L_pointwise"]
    torch.testing.assert_close(loss.detach(), expected)
    for heads, lambda_o in ((1, 0.3), (4, 0.0)):
        _, scalars = pretraining(fresh(heads=heads), given_epochs=0, lambda_o=lambda_o)(BATCH, 1)
        assert "L_o" not in scalars


def test_pre_training_learns_the_shown_lists() -> None:
    """Enough steps on four lists: the policy knows them by heart, and none beside."""
    model = fresh(prior="none")
    objective = pretraining(model, given_epochs=0, lambda_o=0.1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(150):
        loss, _ = objective(BATCH, 1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        z, prior = model.encode(BATCH)
        shown = list_log_probs(model.block_logits(z, prior, BATCH.exposed), BATCH.exposed).sum(1)
        other = torch.where(BATCH.exposed >= 0, BATCH.exposed, -1)
        other[:, :2] = other[:, :2].flip(1)
        swapped = list_log_probs(model.block_logits(z, prior, other), other).sum(1)
    assert (shown > -0.7).all()
    assert (swapped < -3).all()


def test_pointwise_loss_by_loops() -> None:
    model = lively_model()
    z, _ = model.encode(BATCH)
    per_list = []
    for row in range(BATCH.size):
        terms = []
        for place, item in enumerate(BATCH.exposed[row].tolist()):
            if item >= 0:
                state = z[row, item, : model.settings.width]
                p = torch.sigmoid(model.relevance(state)).item()
                clicked = float(BATCH.utility[row, place])
                terms.append(-np.log(p if clicked else 1 - p))
        per_list.append(np.mean(terms))
    assert float(pointwise_loss(model, z, BATCH)) == pytest.approx(np.mean(per_list), rel=1e-4)


def test_rerank_dpo_starts_at_the_reference() -> None:
    """Policy and reference are one at first: every margin is 0 and the loss is that of a coin."""
    settings = PostTrainSettings(likelihood="none")
    objective = RerankDpoObjective(fresh(), ExposurePairs(1.0, 1.0), settings, 0).train()
    loss, scalars = objective(BATCH, 1)
    share = float(scalars["pairs"])
    assert 0 < share <= 1
    assert float(loss.detach()) == pytest.approx(share * np.log(2), abs=1e-5)
    for name in ("rewards/margins", "rewards/accuracies", "logps/chosen_fall"):
        assert float(scalars[name]) == pytest.approx(0, abs=1e-5)


def test_the_reference_stays_where_it_was() -> None:
    model = fresh()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    objective = RerankDpoObjective(model, MirroredPairs(1.0, 1.0), PostTrainSettings(), 0).train()
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-2)
    for step in range(5):
        loss, _ = objective(BATCH, step)
        loss.backward()
        optimizer.step()
    assert not objective.reference.training
    assert all((objective.reference.state_dict()[n] == v).all() for n, v in before.items())
    assert any((model.state_dict()[n] != v).any() for n, v in before.items())
    held = {id(p) for p in objective.parameters()}
    assert not any(id(p) in held for p in objective.reference.parameters())
    assert set(objective.state_dict()) == {f"model.{name}" for name in before}


def test_rerank_dpo_learns_its_pairs() -> None:
    model = fresh()
    settings = PostTrainSettings(likelihood="nll", likelihood_weight=0.1)
    batch = random_batch([6] * 8, seed=1)
    objective = RerankDpoObjective(model, ExposurePairs(1.0, 1.0), settings, 0).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        loss, scalars = objective(batch, 1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(scalars["rewards/accuracies"]) == 1
    assert float(scalars["rewards/margins"]) > 0.3
    assert float(scalars["logps/chosen_fall"]) < 0


class Recording:
    """A source that keeps the seeds it was given and what precision it worked in."""

    def __init__(self) -> None:
        self.seeds: list[list[int]] = []
        self.dtypes: list[torch.dtype] = []

    def pairs(self, batch: Batch, policy: GenReranker, seed: torch.Tensor) -> Pairs:
        self.seeds.append(seed.tolist())
        self.dtypes.append((torch.ones(2, 2) @ torch.ones(2, 2)).dtype)
        return ExposurePairs(1.0, 1.0).pairs(batch, policy, seed)


def test_pairs_get_a_seed_for_each_slate_and_epoch() -> None:
    source = Recording()
    objective = RerankDpoObjective(fresh(), source, PostTrainSettings(), seed=3)
    rows = torch.tensor([40, 7, 9, 100])
    for epoch in (1, 2):
        objective(replace(BATCH, row=rows), epoch)
    assert source.seeds == [row_seeds(3, epoch, rows).tolist() for epoch in (1, 2)]


def test_pairs_are_made_in_full_precision() -> None:
    """Under bf16 autocast the loss may be rounded; which list is drawn and preferred may not."""
    source = Recording()
    objective = RerankDpoObjective(fresh(), source, PostTrainSettings(), seed=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = objective(BATCH, 1)
    assert torch.isfinite(loss)
    assert source.dtypes == [torch.float32]


def test_pairs_are_left_to_the_last_epochs() -> None:
    """Those before are distillation alone; who has no teacher learns from pairs all the time."""
    scores = np.zeros((4, 3, 6), np.float16)
    teacher = Searched(np.tile(np.arange(3), (4, 1)), scores)
    batch = random_batch([6] * 4, seed=2)
    settings = PostTrainSettings(
        optim=OptimSettings(epochs=5), distil=1.0, dpo_epochs=2, likelihood="none"
    )
    for own, wanted in ((teacher, [4, 5]), (None, [1, 2, 3, 4, 5])):
        source = Recording()
        objective = RerankDpoObjective(fresh(), source, settings, seed=0, teacher=own)
        seen = [epoch for epoch in range(1, 6) if "pairs" in objective(batch, epoch)[1]]
        assert seen == wanted
        assert len(source.seeds) == len(wanted)


def test_mass_on_unshown_by_loops() -> None:
    model = lively_model()
    z, prior = model.encode(BATCH)
    logits = model.block_logits(z, prior, BATCH.exposed)
    masses = []
    for row in range(BATCH.size):
        y = [item for item in BATCH.exposed[row].tolist() if item >= 0]
        for k in range(len(y)):
            m = int(BATCH.count[row])
            free = [j for j in range(m) if j not in y[:k]]
            p = softmax(logits[row, k, free].double().numpy())
            masses.append(sum(share for j, share in zip(free, p) if j not in y))
    expected = np.mean(masses)
    assert 0 < expected < 1
    got = float(mass_on_unshown(logits, BATCH.exposed, BATCH.exposed))
    assert got == pytest.approx(expected, rel=1e-4)
    all_shown = random_batch([4, 3], seed=1)
    z, prior = model.encode(all_shown)
    nothing = mass_on_unshown(
        model.block_logits(z, prior, all_shown.exposed), all_shown.exposed, all_shown.exposed
    )
    assert float(nothing) == pytest.approx(0, abs=1e-6)
