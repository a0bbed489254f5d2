"""What the recipe is for: better lists than those it was given, in truth and not by accident.

Simulated worlds know the truth; the policies are trained and chosen without it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.reading import read_json
from tests.training.runs import done, run, settings
from training import evaluate, post_train, prepare, pretrain
from training.checkpoint import load_checkpoint, weights_sha256
from training.evaluation.against_baseline import Comparison

LISTS = "6000"
SMALLER = settings("post_train.optim.epochs=3", "pretrain.optim.batch_size=64")


def trained(folder: Path, world: str, *extra: str) -> Path:
    """Slates and both stages under a folder, with the settings of simulated worlds."""
    slates = folder / "slates"
    source = ("--source", "simulator", "--world", world, "--lists", LISTS, "--seed", "3")
    done(prepare.app, *source, "--out", slates, *extra)
    done(pretrain.app, "--data", slates, "--out", folder, *SMALLER)
    start = folder / "pretrain" / "best.pt"
    result = run(post_train.app, "--data", slates, "--checkpoint", start, "--out", folder, *SMALLER)
    assert result.exit_code in (0, 3), result.output
    return folder


def compared(folder: Path) -> Comparison:
    out = folder / "evaluation.json"
    policies = [
        word
        for stage in ("pretrain", "post_train")
        for word in ("--policy", f"{stage}={folder / stage / 'best.pt'}")
    ]
    done(evaluate.app, "--data", folder / "slates", *policies, "--out", out)
    return read_json(out, Comparison)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("world", ["noisy", "strong"])
def test_post_training_beats_the_given_order_and_pre_training(tmp_path: Path, world: str) -> None:
    results = compared(trained(tmp_path, world))

    both = results.get("true click*", "post_train")
    alone = results.get("true click*", "pretrain")
    assert both.difference is not None
    assert alone.difference is not None
    assert both.difference.low > 0, "above the given order by more than the interval"
    assert both.difference.low > alone.difference.high, "and above pre-training alone"
    assert alone.difference.low > -0.02, "pre-training gives the given order back"


@pytest.mark.timeout(900)
def test_shuffled_feedback_gains_nothing(tmp_path: Path) -> None:
    """The control: with feedback dealt to other lists, nothing may be learned, nor harmed."""
    folder = trained(tmp_path, "noisy", "--shuffle-feedback")

    start = load_checkpoint(folder / "pretrain" / "best.pt")
    after = load_checkpoint(folder / "post_train" / "best.pt")
    assert weights_sha256(after.weights) == weights_sha256(start.weights)
    difference = compared(folder).get("true click*", "post_train").difference
    assert difference is not None
    assert difference.low < 0.01
