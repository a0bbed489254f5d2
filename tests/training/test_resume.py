"""A killed run goes on to the same losses and weights; a run folder belongs to one run."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.runs import (
    ROOT,
    TINY_MODEL,
    assert_same_weights,
    done,
    epochs,
    make_data,
    post_train_run,
    pretrain_run,
    run,
    settings,
)
from training import post_train, pretrain
from training.checkpoint import load_tensors

APPS = {"pretrain": pretrain.app, "post_train": post_train.app}
PRETRAIN = (
    "pretrain.optim.epochs=3",
    "pretrain.optim.batch_size=32",
    "pretrain.optim.learning_rate=3.0e-3",
    "pretrain.optim.warm_up_steps=2",
    "model.dropout=0.1",  # random numbers of each step must be the same too
)
#: Policy pairs: draws, evaluators and a judge are all made again. Accepted whatever they are worth.
POST_TRAIN = (
    "post_train.optim.epochs=3",
    "post_train.optim.batch_size=32",
    "post_train.optim.learning_rate=3.0e-3",
    "post_train.optim.warm_up_steps=2",
    "post_train.pairs.evaluator.min_gain=-9",
    "post_train.pairs.evaluator.optim.epochs=1",
)


@pytest.mark.parametrize(
    ("stage", "point"),
    [("pretrain", "training"), ("pretrain", "saving"), ("post_train", "saved")],
)
def test_a_killed_run_goes_on_to_the_same_losses(
    tiny_data: Path, tiny_policy: Path, tmp_path: Path, stage: str, point: str
) -> None:
    options = ["--data", str(tiny_data)]
    if stage == "pretrain":
        options += settings(*TINY_MODEL, *PRETRAIN)
    else:
        options += ["--checkpoint", str(tiny_policy), *settings(*POST_TRAIN)]
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    script = Path(__file__).with_name("train_and_die.py")
    killed = subprocess.run(
        [sys.executable, str(script), point, stage, *options, "--out", str(broken)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert load_tensors(broken / stage / "state.pt")["epoch"] == 1
    assert not (broken / stage / "best.pt").exists()
    done(APPS[stage], *options, "--out", broken)
    done(APPS[stage], *options, "--out", whole)
    assert epochs(broken / stage) == epochs(whole / stage)
    assert [row["epoch"] for row in epochs(whole / stage)] == [0, 1, 2, 3]
    assert_same_weights(broken / stage / "best.pt", whole / stage / "best.pt")
    states = [load_tensors(out / stage / "state.pt")["model"] for out in (broken, whole)]
    assert all((states[0][name] == value).all() for name, value in states[1].items())
    assert len({row["loss"] for row in epochs(whole / stage)[1:]}) == 3


def test_a_finished_run_repeated_changes_nothing(tiny_data: Path, tmp_path: Path) -> None:
    best = pretrain_run(tiny_data, tmp_path, *PRETRAIN)
    before = best.with_name("history.json").read_text()
    first = best.with_name("first.pt")
    shutil.copy(best, first)
    pretrain_run(tiny_data, tmp_path, *PRETRAIN)
    assert best.with_name("history.json").read_text() == before
    assert_same_weights(best, first)


@pytest.mark.parametrize(
    "other",
    ["pretrain.lambda_o=0.3", "seed=1", "model.width=32", "pretrain.optim.epochs=4"],
)
def test_other_settings_in_the_same_folder_are_refused(
    tiny_data: Path, tiny_policy: Path, tmp_path: Path, other: str
) -> None:
    shutil.copytree(tiny_policy.parent, tmp_path / "pretrain")
    before = (tmp_path / "pretrain" / "state.pt").read_bytes()
    options = settings(*TINY_MODEL, "pretrain.optim.batch_size=32", other)
    result = run(pretrain.app, "--data", tiny_data, "--out", tmp_path, *options)
    assert result.exit_code == 2
    for part in ("state.pt: is of a run with other data, settings", "another --out", "remove"):
        assert part in result.output
    assert (tmp_path / "pretrain" / "state.pt").read_bytes() == before


def test_other_slates_of_the_same_input_are_refused(tiny_policy: Path, tmp_path: Path) -> None:
    """A dataset's fingerprint is its input's: what was made of it may still be other slates."""
    shutil.copytree(tiny_policy.parent, tmp_path / "run" / "pretrain")
    options = settings(*TINY_MODEL, "pretrain.optim.batch_size=32")
    same = make_data(tmp_path / "same", 200)
    done(pretrain.app, "--data", same, "--out", tmp_path / "run", *options)
    manifest = same / "dataset.json"
    content = json.loads(manifest.read_text())
    content["settings"]["valid_part"] = 0.2
    manifest.write_text(json.dumps(content))
    result = run(pretrain.app, "--data", same, "--out", tmp_path / "run", *options)
    assert result.exit_code == 2
    assert "is of a run with other data" in result.output


def test_another_start_in_the_same_folder_is_refused(
    tiny_data: Path, tiny_policy: Path, tmp_path: Path
) -> None:
    short = "post_train.pairs.source=mirrored", "post_train.optim.epochs=1"
    assert post_train_run(tiny_data, tiny_policy, tmp_path, *short).exit_code == 0
    other = pretrain_run(tiny_data, tmp_path / "other", "seed=5", "pretrain.optim.epochs=1")
    result = post_train_run(tiny_data, other, tmp_path, *short)
    assert result.exit_code == 2
    assert "starting weights" in result.output


@pytest.mark.parametrize("damage", ["cut", "other"])
def test_a_damaged_state_is_refused(
    tiny_data: Path, tiny_policy: Path, tmp_path: Path, damage: str
) -> None:
    shutil.copytree(tiny_policy.parent, tmp_path / "pretrain")
    state = tmp_path / "pretrain" / "state.pt"
    if damage == "cut":
        state.write_bytes(state.read_bytes()[:-500])
    else:  # a file that loads, and is something else
        shutil.copy(tiny_policy, state)
    options = settings(*TINY_MODEL, "pretrain.optim.batch_size=32")
    result = run(pretrain.app, "--data", tiny_data, "--out", tmp_path, *options)
    assert result.exit_code == 2
    assert "state.pt: " in result.output
    assert ("damaged" if damage == "cut" else "is of a run with other") in result.output
