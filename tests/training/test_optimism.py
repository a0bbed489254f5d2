"""What is scored after every epoch of post-training, and the limits at which it ends."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.evaluation.logged_slates import logged_by, slate_arrays
from tests.model.tiny import SPEC, lively_model, one_row
from tests.pairs.evaluators import evaluator
from training.alarms import extrapolation
from training.data.arrays import SlateArrays
from training.data.batch import Batch
from training.decoding.run import decode_slates
from training.distributed import Processes
from training.evaluation.divergence import mean_divergence
from training.evaluation.metrics import given_order
from training.evaluation.truth import Orders
from training.loop import History, Stage, run_stage
from training.losses.likelihood import list_log_probs
from training.model.gen_reranker import GenReranker
from training.optimism import Optimism
from training.pairs.ensemble import Ensemble
from training.pairs.evaluator import Evaluator
from training.settings import OptimSettings

CPU = torch.device("cpu")
BEGUN, FURTHER = lively_model(2), lively_model(2, seed=5)
COUNTS = [9, 4, 7, 1, 8, 6] * 5


def another() -> Evaluator:
    """One that errs in its own way."""
    made = copy.deepcopy(evaluator())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return made


LABELLER = Ensemble([evaluator(), another()])


def optimism(
    slates: SlateArrays, true_gain: Callable[[Orders], float] | None = None, **changes: Any
) -> Optimism:
    made = {"policy": BEGUN, "begun": BEGUN, "labeller": LABELLER, "judge": evaluator()}
    return Optimism(**{**made, **changes}, slates=slates, device=CPU, true_gain=true_gain)


def gain_by_loops(judge: Ensemble | Evaluator, slates: SlateArrays, orders: Orders) -> float:
    """Mean, over slates one at a time, of what a list is worth more than the given order."""
    batch = slates.batch(np.arange(len(slates)))
    gains = []
    for row in range(len(slates)):
        m = int(slates.count[row])
        order = [item for item in orders[row].tolist() if item >= 0]
        both = torch.tensor([[order, list(range(m))[: len(order)]]])
        value = judge.value(one_row(batch, row), both)[0]
        gains.append(float(value[0] - value[1]))
    return float(np.mean(gains))


def test_the_beginning_is_where_it_began_and_the_given_order_gains_nothing() -> None:
    slates = slate_arrays(COUNTS, seed=3)
    scores = optimism(slates)(given_order(slates.count, 5))
    assert set(scores) == {"kl", "labelled_gain", "optimism"}
    for value in scores.values():
        assert value == pytest.approx(0, abs=1e-5)


def test_optimism_is_what_the_judge_does_not_see_of_the_gain() -> None:
    """The mean over all slates of several sizes, whichever batch they fall into."""
    slates = slate_arrays(COUNTS * 20, seed=4)  # 600, more than a batch
    orders = decode_slates(FURTHER, slates, 5)
    scores = optimism(slates, policy=FURTHER)(orders)
    labelled = gain_by_loops(LABELLER, slates, orders)
    judged = gain_by_loops(evaluator(), slates, orders)
    assert abs(labelled - judged) > 1e-3
    assert scores["labelled_gain"] == pytest.approx(labelled, abs=1e-4)
    assert scores["optimism"] == pytest.approx(labelled - judged, abs=1e-4)
    assert scores["kl"] > 0.1


def test_a_judge_that_is_the_labeller_finds_no_optimism() -> None:
    slates = slate_arrays(COUNTS, seed=5)
    orders = decode_slates(FURTHER, slates, 5)
    scores = optimism(slates, labeller=Ensemble([evaluator()]))(orders)
    assert abs(scores["labelled_gain"]) > 1e-3
    assert scores["optimism"] == pytest.approx(0, abs=1e-5)


def log_probs(model: GenReranker, request: Batch, lists: Tensor) -> Tensor:
    """log p of whole lists of one request."""
    z, prior = model.encode(request)
    size = len(lists)
    logits = model.block_logits(z.expand(size, -1, -1), prior.expand(size, -1), lists)
    return list_log_probs(logits, lists).double().sum(1)


def test_kl_is_exact_where_a_list_is_one_choice() -> None:
    """KL(policy || beginning), in nats, of softmaxes worked out here; the other way is another."""
    one_item = msgspec.structs.replace(SPEC, list_size=1)
    slates = slate_arrays(COUNTS, seed=6, spec=one_item)
    scores = optimism(slates, policy=FURTHER)(decode_slates(FURTHER, slates, 1))
    batch = slates.batch(np.arange(len(slates)))

    def first_choice(model: GenReranker, row: int) -> Any:
        every = torch.arange(int(slates.count[row])).unsqueeze(1)
        return log_probs(model, one_row(batch, row), every).exp().numpy()

    each, back = [], []
    for row in range(len(slates)):
        p, q = first_choice(FURTHER, row), first_choice(BEGUN, row)
        each.append((p * np.log(p / q)).sum())
        back.append((q * np.log(q / p)).sum())
    assert scores["kl"] == pytest.approx(np.mean(each), rel=1e-3)
    assert scores["kl"] != pytest.approx(np.mean(back), rel=1e-2)


def test_kl_of_longer_lists_is_that_of_their_distributions() -> None:
    """Over all 24 lists of 3 out of 4; lists drawn by many seeds come near it."""
    short = msgspec.structs.replace(SPEC, list_size=3)
    slates = slate_arrays([4] * 20, seed=7, spec=short)
    batch = slates.batch(np.arange(20))
    every = torch.tensor(list(permutations(range(4), 3)))
    exact = []
    for row in range(20):
        log_p, log_q = (log_probs(model, one_row(batch, row), every) for model in (FURTHER, BEGUN))
        exact.append(float((log_p.exp() * (log_p - log_q)).sum()))
    found = [mean_divergence(FURTHER, BEGUN, slates, 1000 * seed) for seed in range(40)]
    error = float(np.std(found, ddof=1)) / 40**0.5
    assert error < 0.1 * np.mean(exact)
    assert abs(np.mean(found) - np.mean(exact)) < 4 * error


def test_the_worlds_own_gain_is_given_where_there_is_a_world() -> None:
    slates = slate_arrays(COUNTS, seed=8)
    orders = decode_slates(FURTHER, slates, 5)
    seen: list[Orders] = []

    def truth(orders: Orders) -> float:
        seen.append(orders)
        return 0.25

    scores = optimism(slates, truth)(orders)
    assert scores["true_gain (simulated)"] == 0.25
    assert seen[0] is orders
    assert "off_policy_gain" not in scores


def test_traffic_that_was_explored_gives_an_off_policy_gain() -> None:
    """Of 0 for the policy that it began with, and only where lists were drawn."""
    slates = logged_by(BEGUN, [8] * 300, 4, 1.0, seed=2)
    orders = decode_slates(BEGUN, slates, 4)
    assert optimism(slates)(orders)["off_policy_gain"] == pytest.approx(0, abs=1e-6)
    near = copy.deepcopy(BEGUN)
    with torch.no_grad():
        near.encoder.position_prior.mul_(1.5)
    moved = optimism(slates, policy=near)(decode_slates(near, slates, 4))
    assert moved["off_policy_gain"] != pytest.approx(0, abs=1e-6)
    sure = logged_by(BEGUN, [8] * 300, 4, 0.0, seed=2)
    assert "off_policy_gain" not in optimism(sure)(orders)


@pytest.mark.parametrize("name", ["kl", "optimism"])
def test_a_limit_that_is_passed_is_named_with_the_value(name: str) -> None:
    scores = {f"held_out/{name}": 2.3456}

    def text(own: float, other: float = 0.0) -> str:
        return extrapolation(*((own, other) if name == "kl" else (other, own)), scores)

    for part in (f"{name} 2.35", "(limit 2.3)"):
        assert part in text(2.3)
    assert text(2.5) == ""
    assert text(0.0) == ""  # no limit
    assert text(0.0, 0.1) == ""  # the other's


def test_scores_that_are_not_there_or_below_0_pass() -> None:
    assert extrapolation(0.1, 0.1, {"loss": 9.0}) == ""
    assert extrapolation(0.1, 0.1, {"held_out/optimism": -3.0, "held_out/kl": 0.1}) == ""


class Creeping(nn.Module):
    """A model of one weight, which every epoch raises."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.model.weight)

    @property
    def weight(self) -> float:
        return float(self.model.weight.detach())

    def forward(self, batch: Batch, epoch: int) -> tuple[Tensor, dict[str, Tensor]]:
        return -self.model.weight.sum(), {}


def creep(folder: Path, max_kl: float, began: float = 0.0) -> tuple[Creeping, History, list[float]]:
    """Six epochs, each better than the one before it and further away; weights after each."""
    objective = Creeping()
    weights: list[float] = []

    def validate() -> dict[str, float]:
        weights.append(objective.weight)
        return {"score": objective.weight, "kl": began + objective.weight}

    stage = Stage(
        name="post_train",
        objective=objective,
        optim=OptimSettings(learning_rate=0.1, batch_size=4, warm_up_steps=0, weight_decay=0.0),
        validate=validate,
        selection="score",
        epochs=6,
        seed=0,
        identity="one",
        enough=lambda scores: extrapolation(max_kl, 0.0, scores),
    )
    history = run_stage(stage, slate_arrays([3] * 8), folder, Processes(0, 1, CPU))
    return objective, history, weights


def test_a_limit_ends_the_stage_with_the_epoch_before_it(tmp_path: Path) -> None:
    """No alarm: what comes out is sound. Asked again it stays so, and trains no further."""
    free, history, weights = creep(tmp_path / "free", 0.0)
    assert history.stopped == ""
    assert history.best_epoch == 6
    assert free.weight == weights[6] > weights[5]
    limit = (weights[2] + weights[3]) / 2
    for again in (False, True):
        objective, history, seen = creep(tmp_path / "limited", limit)
        assert seen == ([] if again else weights[:4])
        assert objective.weight == weights[2]
        assert history.best_epoch == 2
        assert history.best_score == weights[2]
        assert len(history.epochs) == 4
        assert history.alarm == ""
        for part in ("kl", f"{weights[3]:.3g}", f"(limit {limit:g})"):
            assert part in history.stopped
    written = json.loads((tmp_path / "limited" / "history.json").read_text())
    assert written["stopped"] == history.stopped
    assert written["alarm"] == ""


def test_a_limit_that_the_beginning_passes_gives_it_back(tmp_path: Path) -> None:
    objective, history, weights = creep(tmp_path, 0.5, began=1.0)
    assert objective.weight == 0
    assert weights == [0.0]
    assert "kl 1 " in history.stopped
    assert history.alarm == ""
    assert (history.best_epoch, history.best_score) == (0, 0.0)
