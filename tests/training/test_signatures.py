"""The failures that paper.md's trials taught us to expect, each with its alarm, and the controls.

Small worlds of 1,500 lists: these are tests of the signatures, not of how much GReF wins.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.datasets import read_dataset
from contracts.reading import convert
from tests.training.runs import (
    TINY_MODEL,
    assert_same_weights,
    epochs,
    post_train_run,
    pretrain_run,
    run,
    settings,
)
from training import pretrain
from training.alarms import auc_without_ndcg, collapse, duplicates
from training.checkpoint import load_checkpoint
from training.data.arrays import SlateArrays, load_slates
from training.decoding import omtp
from training.decoding.run import decode_slates
from training.sources.simulator import SimulatorSettings
from training.sources.world import World

POLICY_PAIRS = (
    "post_train.pairs.source=policy",
    "post_train.pairs.evaluator.optim.batch_size=64",
    "post_train.pairs.evaluator.optim.epochs=4",  # a third of 1,200 lists is few steps
    "post_train.optim.batch_size=64",
    "post_train.optim.learning_rate=3.0e-3",
    "post_train.optim.epochs=3",
)


def true_clicks(data: Path, policy: Path | None) -> Any:
    """Expected clicks of each test list by the world's truth; of the given order without one."""
    dataset, spec = read_dataset(data)
    slates = load_slates(data / "test", spec)
    world = World(convert(dataset.settings, SimulatorSettings, "settings").world)
    orders = np.tile(np.arange(spec.list_size), (len(slates), 1))
    if policy is not None:
        orders = decode_slates(load_checkpoint(policy).model(), slates, spec.list_size)
    return world_clicks(world, slates, orders)


def world_clicks(world: World, slates: SlateArrays, orders: Any) -> Any:
    users = np.array([int(user.lstrip("u")) for user in slates.user])
    shown = np.take_along_axis(slates.items, orders, 1)
    items = np.array([[int(item.lstrip("i")) for item in row] for row in shown])
    assert world.item_id(int(items[0, 0])) == shown[0, 0]
    assert world.user_id(int(users[0])) == slates.user[0]
    return world.expected("click", users, items).sum(axis=1)


def test_the_published_recipe_collapses_and_the_alarm_stops_it(
    world_data: Path, world_policy: Path, tmp_path: Path
) -> None:
    """Eq. 7 pairs, beta 0.1, no likelihood term, m > n: both lists lose probability to the
    candidates that were not shown (paper.md, second trial)."""
    result = post_train_run(
        world_data,
        world_policy,
        tmp_path,
        "post_train.pairs.source=exposure",
        "post_train.likelihood=none",
        "post_train.beta=0.1",
        "post_train.optim.epochs=12",
        "post_train.optim.batch_size=64",
        "post_train.optim.learning_rate=1.0e-2",
    )
    assert result.exit_code == 3
    assert "refused: DPO collapse: the chosen lists lost" in result.output
    assert "candidates that were not shown" in result.output
    rows = epochs(tmp_path / "post_train")
    history = json.loads((tmp_path / "post_train" / "history.json").read_text())
    assert "DPO collapse" in history["alarm"]
    assert len(rows) < 13  # stopped before its time
    first, last = rows[1], rows[-1]
    assert last["logps/chosen"] < first["logps/chosen"] - 5
    assert last["logps/rejected"] < first["logps/rejected"] - 5
    assert last["logps/chosen_fall"] > 10
    assert last["held_out/mass_unshown"] > rows[0]["held_out/mass_unshown"] + 0.05
    # What misled its readers: the loss falls and the accuracy rises all the while.
    assert last["loss"] < first["loss"]
    assert last["rewards/accuracies"] > first["rewards/accuracies"]
    # What comes out is the best policy before, and no worse than what went in.
    best = history["best_epoch"]
    assert best < rows[-1]["epoch"]
    scores = [row["held_out/ndcg_shown"] for row in rows[:-1]]
    assert scores[best] == max(scores) == history["best_score"]
    if best == 0:
        assert_same_weights(tmp_path / "post_train" / "best.pt", world_policy)
    lost = true_clicks(world_data, tmp_path / "post_train" / "best.pt").mean()
    assert lost > true_clicks(world_data, world_policy).mean() - 0.05


def test_a_likelihood_term_holds_where_the_published_recipe_falls(
    world_data: Path, world_policy: Path, tmp_path: Path
) -> None:
    """The same run with the term: no alarm, and less probability lost."""
    result = post_train_run(
        world_data,
        world_policy,
        tmp_path,
        "post_train.pairs.source=exposure",
        "post_train.likelihood=nll",
        "post_train.likelihood_weight=1.0",
        "post_train.optim.epochs=4",
        "post_train.optim.batch_size=64",
        "post_train.optim.learning_rate=1.0e-2",
    )
    assert result.exit_code == 0, result.output
    assert max(row["logps/chosen_fall"] for row in epochs(tmp_path / "post_train")[1:]) < 5


def test_shuffled_feedback_is_refused_by_the_gate_of_the_evaluator(
    shuffled_data: Path, tmp_path: Path
) -> None:
    start = pretrain_run(shuffled_data, tmp_path, "pretrain.optim.epochs=1")
    result = post_train_run(shuffled_data, start, tmp_path, *POLICY_PAIRS)
    assert result.exit_code == 3
    assert "no better than the position alone" in result.output
    assert "they may not label pairs" in result.output
    assert_same_weights(tmp_path / "post_train" / "best.pt", start)
    history = json.loads((tmp_path / "post_train" / "history.json").read_text())
    assert "may not label pairs" in history["alarm"]
    assert [row["epoch"] for row in history["epochs"]] == [0]
    # Asked again it refuses again, rather than to go on from the state it left.
    assert post_train_run(shuffled_data, start, tmp_path, *POLICY_PAIRS).exit_code == 3


def test_real_feedback_passes_the_gate_and_teaches(
    world_data: Path, world_policy: Path, tmp_path: Path
) -> None:
    """The control's control: on the same lists, unshuffled, the policy learns from the feedback."""
    result = post_train_run(world_data, world_policy, tmp_path, *POLICY_PAIRS)
    assert result.exit_code == 0, result.output
    rows = epochs(tmp_path / "post_train")
    history = json.loads((tmp_path / "post_train" / "history.json").read_text())
    assert history["alarm"] == ""
    assert history["best_epoch"] > 0
    assert rows[history["best_epoch"]]["held_out/value_gain"] > 0.02
    best = tmp_path / "post_train" / "best.pt"
    gain = true_clicks(world_data, best) - true_clicks(world_data, None)
    assert gain.mean() > 2 * gain.std() / np.sqrt(len(gain))
    parents = load_checkpoint(best).parents
    assert parents["reference_sha256"] == parents["anchor"]  # the reference is the pre-trained


def test_collapse_names_the_fall_and_the_mass() -> None:
    assert collapse(10, {"logps/chosen_fall": 9.9, "mass_unshown": 0.9}) == ""
    assert collapse(10, {"loss": 1.0}) == ""
    alarm = collapse(10, {"logps/chosen_fall": 12.3, "mass_unshown": 0.42})
    for part in ("DPO collapse", "12.3 nats", "limit 10", "42%"):
        assert part in alarm


def test_duplicates_are_named() -> None:
    assert duplicates({"held_out/duplicates": 0.0}) == ""
    assert "an item twice" in duplicates({"held_out/duplicates": 0.001})


@pytest.mark.parametrize(
    ("auc", "ndcg", "fires"),
    [(0.01, -0.01, True), (0.01, 0.0, False), (0.0, -0.01, False), (-0.01, -0.01, False)],
)
def test_auc_without_ndcg_is_named(auc: float, ndcg: float, fires: bool) -> None:
    given = {"auc": 0.6, "ndcg": 0.7}
    alarm = auc_without_ndcg(given, {"auc": 0.6 + auc, "ndcg": 0.7 + ndcg})
    assert bool(alarm) == fires
    assert not fires or "lambda_o" in alarm


def test_a_broken_mask_ends_pre_training_with_its_alarm(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoding that forgets what it chose is named before anything is trained on it."""
    monkeypatch.setattr(omtp, "block_picked", lambda bias_BM, item_B1: bias_BM)
    options = settings(*TINY_MODEL, "pretrain.optim.batch_size=80", "pretrain.optim.epochs=3")
    result = run(pretrain.app, "--data", tiny_data, "--out", tmp_path, *options)
    assert result.exit_code == 3
    assert "refused: duplicates: decoded lists hold an item twice" in result.output
    (row,) = epochs(tmp_path / "pretrain")
    assert row["held_out/duplicates"] == 1
    assert row["held_out/ndcg"] == 0
