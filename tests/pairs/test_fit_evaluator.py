"""What an evaluator is fitted to, whom it is kept from, and the bar of its gate."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
import torch

from contracts.features import FeatureSpec
from contracts.slate_columns import to_table
from contracts.slates import Candidate, Feedback, Slate
from tests.model.tiny import SPEC, random_batch
from tests.pairs.evaluators import evaluator, logits
from training.data.arrays import SlateArrays, encode_table
from training.pairs.evaluator import item_losses
from training.pairs.fit_evaluator import (
    MIN_STEPS,
    fit_evaluator,
    position_rate_losses,
    share_of_users,
)
from training.settings import EvaluatorSettings, OptimSettings

CPU = torch.device("cpu")
CONTINUOUS = msgspec.structs.replace(SPEC, utility="watch")


def made(lists: int, seed: int, spec: FeatureSpec = SPEC, taught: bool = True) -> SlateArrays:
    """Lists of 3 to 5 out of 6, where red items are clicked (if ``taught``) and watched longer."""
    rng = np.random.default_rng(seed)
    slates = []
    for row in range(lists):
        colours = rng.choice(["red", "green"], 6)
        exposed = rng.permutation(6)[: rng.integers(3, 6)].tolist()
        feedback = []
        for position, item in enumerate(exposed):
            red = colours[item] == "red" if taught else rng.random() < 0.5
            if rng.random() < (0.8 if red else 0.1):
                feedback.append(Feedback(position=position, kind="click", value=1.0, time=1))
                watched = float(rng.exponential(30 if red else 5))
                feedback.append(Feedback(position=position, kind="watch", value=watched, time=1))
        slates.append(
            Slate(
                request_id=f"r{row}",
                user=f"u{row % 20}",
                time=row,
                candidates=tuple(
                    Candidate(item=f"i{rng.integers(50)}", features={"colour": str(colour)})
                    for colour in colours
                ),
                exposed=tuple(exposed),
                feedback=tuple(feedback),
            )
        )
    return encode_table(to_table(slates, spec), spec)


@pytest.mark.parametrize("binary", [True, False])
def test_the_loss_counts_shown_items_alone(binary: bool) -> None:
    batch = random_batch([5, 7, 2], [2, 4, 1], seed=1)
    predicted = logits(batch, batch.exposed)
    terms = []
    for row, place in (batch.exposed >= 0).nonzero().tolist():
        x, u = float(predicted[row, place]), float(batch.utility[row, place])
        p = 1 / (1 + math.exp(-x))
        terms.append(-math.log(p if u else 1 - p) if binary else (x - u) ** 2)
    loss = float(item_losses(predicted, batch, binary)[batch.exposed >= 0].mean())
    assert loss == pytest.approx(np.mean(terms), rel=1e-4)
    if binary:
        assert float(evaluator().loss(batch)) == pytest.approx(loss)


@pytest.mark.parametrize("spec", [SPEC, CONTINUOUS])
def test_the_bar_is_the_mean_of_each_position(spec: FeatureSpec) -> None:
    train, held_out = made(40, 1, spec), made(15, 2, spec)
    by_place: dict[int, list[float]] = {}
    for row in range(40):
        for place, item in enumerate(train.exposed[row]):
            if item >= 0:
                by_place.setdefault(place, []).append(float(train.utility[row, place]))
    rate = {place: float(np.mean(values)) for place, values in by_place.items()}
    terms = []
    for row in range(15):
        for place, item in enumerate(held_out.exposed[row]):
            if item >= 0:
                u, p = float(held_out.utility[row, place]), rate[place]
                binary = -(u * math.log(p) + (1 - u) * math.log(1 - p))
                terms.append(binary if spec is SPEC else (u - p) ** 2)
    losses = position_rate_losses(train, held_out)[held_out.exposed >= 0]
    assert losses.mean() == pytest.approx(np.mean(terms), rel=1e-5)


@pytest.mark.parametrize("spec", [SPEC, CONTINUOUS], ids=["click", "watch"])
@pytest.mark.parametrize("taught", [True, False])
def test_the_gate_lets_through_who_learned_something(spec: FeatureSpec, taught: bool) -> None:
    settings = EvaluatorSettings(
        width=16,
        layers=1,
        attention_heads=2,
        optim=OptimSettings(epochs=4, batch_size=32, learning_rate=1e-2),
        min_gain=0.02,
    )
    train, held_out = made(300, 1, spec, taught), made(400, 2, spec, taught)
    fitted, report = fit_evaluator(train, held_out, settings, 0, CPU)
    assert report.accepted == taught
    assert report.gain == pytest.approx(1 - report.loss / report.position_rate_loss)
    assert (report.gain > 0.1) == taught
    assert not fitted.training
    assert not any(parameter.requires_grad for parameter in fitted.parameters())
    again, _ = fit_evaluator(train, held_out, settings, 0, CPU)
    assert all(
        torch.equal(value, again.state_dict()[name]) for name, value in fitted.state_dict().items()
    )
    # What it reports is what the returned weights do: the best epoch's, not the last one's.
    batch = next(held_out.batches(1000))
    assert float(fitted.loss(batch)) == pytest.approx(report.loss, rel=1e-4)


def test_noise_does_not_pass_the_gate_by_luck() -> None:
    """A few held-out lists let an evaluator of noise look better now and then; not often."""
    small = EvaluatorSettings(
        width=8,
        layers=1,
        attention_heads=1,
        optim=OptimSettings(epochs=3, batch_size=32, learning_rate=1e-2),
    )
    reports = [
        fit_evaluator(
            made(300, seed, taught=False), made(100, 99 + seed, taught=False), small, seed, CPU
        )[1]
        for seed in range(20)
    ]
    assert sum(report.gain >= small.min_gain for report in reports) >= 3, "the share alone is luck"
    # Of a hundred 15 to 17 pass, not 5: the epoch was chosen on these very lists.
    assert sum(report.accepted for report in reports) <= 5


def test_a_share_of_users_is_stable_and_whole() -> None:
    """All slates of a user fall on one side, in every split and whatever else is there."""
    users = np.array([f"u{number % 500}" for number in range(2000)], dtype=object)
    inside = share_of_users(users, 0.3, "judge")
    for user in ("u1", "u77", "u499"):
        assert len(set(inside[users == user])) == 1
    assert inside[:500].mean() == pytest.approx(0.3, abs=0.08)
    assert (share_of_users(users[::-1][:700], 0.3, "judge") == inside[::-1][:700]).all()
    assert (share_of_users(users, 0.3, "other") != inside).any()
    assert (share_of_users(users, 0.5, "judge") >= inside).all()


def test_fitting_reports_its_progress() -> None:
    lines: list[str] = []
    small = EvaluatorSettings(
        width=8, layers=1, attention_heads=1, optim=OptimSettings(epochs=2, batch_size=64)
    )
    fit_evaluator(made(64, 1), made(10, 2), small, 0, CPU, lines.append)
    assert sum("evaluator epoch" in line for line in lines) == MIN_STEPS  # one step an epoch


def test_few_slates_are_read_more_often() -> None:
    """Two epochs of few lists are a handful of steps, after which nothing is known yet."""
    settings = EvaluatorSettings(
        width=16,
        layers=1,
        attention_heads=2,
        optim=OptimSettings(epochs=2, batch_size=64, learning_rate=1e-2, patience=2),
    )
    _, few = fit_evaluator(made(100, 1), made(400, 2), settings, 0, CPU)
    assert few.accepted
    assert few.gain > 0.1


def test_other_kinds_of_feedback_are_learned_from_the_same_representations() -> None:
    """They change what is learned of the utility, and nothing of what is said or judged."""
    train, held_out = made(300, 1), made(200, 2)
    settings = EvaluatorSettings(
        width=16,
        layers=1,
        attention_heads=2,
        optim=OptimSettings(epochs=4, batch_size=32, learning_rate=1e-2),
        other_kinds=1.0,
    )
    fitted, report = fit_evaluator(train, held_out, settings, 0, CPU)
    alone, _ = fit_evaluator(
        train, held_out, msgspec.structs.replace(settings, other_kinds=0.0), 0, CPU
    )
    assert report.accepted
    assert fitted.others is not None
    assert alone.others is None
    assert not torch.equal(fitted.own.weight, alone.own.weight)
    batch = next(held_out.batches(1000))
    assert float(fitted.loss(batch)) == pytest.approx(report.loss, rel=1e-4)
    # Watch time is unlike for red and green items: most of what can be known of it is.
    read = torch.cat(fitted._read(fitted.items(batch), batch.item_cat, batch.exposed), dim=-1)
    shown = batch.exposed >= 0
    constant = sum(
        1.0 if not binary else _entropy(batch.feedback[shown][:, column])
        for column, binary in zip(fitted.others.columns, fitted.others.binary)
    )
    assert float(fitted.others.loss(read[shown], batch.feedback[shown])) < 0.95 * constant


def _entropy(feedback: torch.Tensor) -> float:
    p = float((feedback > 0).float().mean())
    return -(p * math.log(p) + (1 - p) * math.log(1 - p)) if 0 < p < 1 else 0.0
