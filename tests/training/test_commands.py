"""What the training commands answer to bad input: exit code 2, the cause, and what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from contracts.datasets import read_dataset
from tests.training.runs import (
    TINY_MODEL,
    epochs,
    make_data,
    post_train_run,
    pretrain_run,
    run,
    settings,
)
from training import post_train, pretrain
from training.checkpoint import load_checkpoint

SHORT = (*TINY_MODEL, "pretrain.optim.epochs=1", "pretrain.optim.batch_size=80")


def refused(output: str, *parts: str) -> None:
    """An error for people: the parts, on a line or two, and no traceback."""
    assert output.count("error:") == 1
    assert "Traceback" not in output
    for part in parts:
        assert part in output, output


@pytest.mark.parametrize(
    ("assignment", "parts"),
    [
        ("pretrian.lambda_o=1", ("no setting pretrian.lambda_o", "allowed here: seed, model")),
        ("pretrain.lamda_o=1", ("no setting pretrain.lamda_o", "lambda_o")),
        ("model.width=abc", ("width",)),
        ("model.width=-4", ("width is -4", "1 or more")),
        ("model.width", ("write it as name=value",)),
        ("model.width=[", ("--set model.width=[",)),
    ],
)
def test_a_setting_that_cannot_be(
    tiny_data: Path, tmp_path: Path, assignment: str, parts: tuple[str, ...]
) -> None:
    result = run(pretrain.app, "--data", tiny_data, "--out", tmp_path, "--set", assignment)
    assert result.exit_code == 2
    refused(result.output, *parts)
    assert not any(tmp_path.iterdir())


def test_data_that_is_not_there(tmp_path: Path, tiny_policy: Path) -> None:
    result = run(pretrain.app, "--data", tmp_path / "no", "--out", tmp_path / "out")
    assert result.exit_code == 2
    refused(result.output, "dataset.json: no such file")
    result = post_train_run(tmp_path / "no", tiny_policy, tmp_path / "out")
    assert result.exit_code == 2


def test_a_split_that_was_not_copied(tiny_data: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_data, tmp_path / "slates")
    shutil.rmtree(tmp_path / "slates" / "valid")
    result = run(pretrain.app, "--data", tmp_path / "slates", "--out", tmp_path / "out")
    assert result.exit_code == 2
    refused(result.output, "valid", "no such file", "prepare the dataset again")


@pytest.mark.parametrize("damage", ["missing", "cut", "text"])
def test_a_checkpoint_to_start_from_that_cannot_be_read(
    tiny_data: Path, tiny_policy: Path, tmp_path: Path, damage: str
) -> None:
    start = tmp_path / "start.pt"
    if damage == "cut":
        start.write_bytes(tiny_policy.read_bytes()[:-200])
    elif damage == "text":
        start.write_text("not weights")
    result = post_train_run(tiny_data, start, tmp_path / "out")
    assert result.exit_code == 2
    refused(result.output, "start.pt", "no such" if damage == "missing" else "damaged")


def test_a_checkpoint_of_other_features(tiny_policy: Path, tmp_path: Path) -> None:
    """The same world with one more candidate shown is another spec; both hashes are named."""
    other = make_data(tmp_path, 100, "--list-size", "6")
    result = post_train_run(other, tiny_policy, tmp_path / "out")
    assert result.exit_code == 2
    hashes = [read_dataset(other)[1].hash()[:12], load_checkpoint(tiny_policy).spec.hash()[:12]]
    refused(result.output, *hashes, "start from a checkpoint of this data")


def test_a_loss_that_is_not_a_number(tiny_data: Path, tmp_path: Path) -> None:
    """Named with its stage, epoch and batch; the run folder keeps no such weights."""
    out = tmp_path / "out"
    result = run(
        pretrain.app,
        *("--data", tiny_data, "--out", out),
        *settings(*SHORT, "pretrain.optim.learning_rate=1.0e+30", "pretrain.optim.epochs=3"),
        *settings("pretrain.optim.warm_up_steps=0", "pretrain.optim.clip_norm=1.0e+30"),
    )
    assert result.exit_code == 2
    refused(result.output, "pretrain: the loss is", "epoch", "batch", "learning rate")
    assert not (out / "pretrain" / "best.pt").exists()


def test_feedback_that_is_not_a_number(tiny_data: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_data, tmp_path / "slates")
    (file,) = (tmp_path / "slates" / "train").iterdir()
    table = pq.read_table(file)
    index = table.schema.get_field_index("feedback__click")
    clicks = table["feedback__click"].to_pylist()
    clicks[3][0] = float("nan")
    column = pa.array(clicks, table.schema.field(index).type)
    pq.write_table(table.set_column(index, table.schema.field(index), column), file)
    result = run(
        pretrain.app, "--data", tmp_path / "slates", "--out", tmp_path / "out", *settings(*SHORT)
    )
    assert result.exit_code == 2
    refused(result.output, "train: feedback__click: nan")


def test_an_out_that_is_a_file(tiny_data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    result = run(pretrain.app, "--data", tiny_data, "--out", tmp_path / "out", *settings(*SHORT))
    assert result.exit_code == 2
    refused(result.output, "out")


def test_policy_pairs_of_one_user_cannot_be_judged(
    tiny_data: Path, tiny_policy: Path, tmp_path: Path
) -> None:
    """The labelling and the judging evaluator must not see the same users: two are needed."""
    shutil.copytree(tiny_data, tmp_path / "slates")
    (file,) = (tmp_path / "slates" / "train").iterdir()
    table = pq.read_table(file)
    index = table.schema.get_field_index("user")
    one = pa.array(["u1"] * table.num_rows)
    pq.write_table(table.set_column(index, table.schema.field(index), one), file)
    result = post_train_run(tmp_path / "slates", tiny_policy, tmp_path / "out")
    assert result.exit_code == 2
    refused(result.output, "users", "judge_share")


@pytest.mark.parametrize("stage", ["pretrain", "post_train"])
def test_no_epochs_give_the_policy_as_it_was(
    tiny_data: Path, tiny_policy: Path, tmp_path: Path, stage: str
) -> None:
    """And the history of it is written all the same."""
    if stage == "pretrain":
        pretrain_run(tiny_data, tmp_path, "pretrain.optim.epochs=0")
    else:
        zero = "post_train.optim.epochs=0", "post_train.pairs.source=mirrored"
        assert post_train_run(tiny_data, tiny_policy, tmp_path, *zero).exit_code == 0
        before, after = load_checkpoint(tiny_policy), load_checkpoint(tmp_path / stage / "best.pt")
        assert all(torch.equal(before.weights[name], w) for name, w in after.weights.items())
    (row,) = epochs(tmp_path / stage)
    assert row["epoch"] == 0
    assert row["held_out/duplicates"] == 0


def test_bf16_trains_in_its_precision(tiny_data: Path, tmp_path: Path) -> None:
    """Close to fp32, and not the same: autocast did run."""
    losses = {}
    for precision in ("fp32", "bf16", "auto"):
        out = tmp_path / precision
        pretrain_run(tiny_data, out, *SHORT, f"pretrain.optim.precision={precision}")
        losses[precision] = epochs(out / "pretrain")[1]["loss"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)
    assert losses["bf16"] != losses["fp32"]
    if not torch.cuda.is_available():
        assert losses["auto"] == losses["fp32"]


def test_a_run_leaves_what_the_help_promises(tiny_policy: Path) -> None:
    folder = tiny_policy.parent
    history = json.loads((folder / "history.json").read_text(), parse_constant=pytest.fail)
    assert [row["epoch"] for row in history["epochs"]] == [0, 1, 2]
    assert history["best_epoch"] == 2  # the one after the epoch on the given order
    assert np.isfinite(history["best_score"])
    assert (folder / "curves.png").stat().st_size > 1000
    assert any((folder / "tensorboard").iterdir())
    assert load_checkpoint(tiny_policy).scores["ndcg"] == history["best_score"]
    names = {"loss", "L_n", "L_o", "held_out/ndcg", "held_out/mass_unshown"}
    assert names <= set(history["epochs"][-1])


@pytest.mark.parametrize("app", [pretrain.app, post_train.app])
def test_help_has_examples(app) -> None:  # type: ignore[no-untyped-def]
    result = run(app, "--help")
    assert result.exit_code == 0
    assert "Examples" in result.output
    assert "Exit code" in result.output
