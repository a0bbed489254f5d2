"""Two processes under torchrun (gloo) against one process on the same global batch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from contracts.reading import ContractError
from tests.training.runs import ROOT, TINY_MODEL, done, epochs, settings
from training import post_train, pretrain
from training.checkpoint import load_checkpoint, load_tensors
from training.data.arrays import load_slates
from training.distributed import Processes
from training.loop import Stage, run_stage
from training.objectives import PretrainObjective
from training.settings import OptimSettings, PretrainSettings

APPS = {"pretrain": pretrain.app, "post_train": post_train.app}
OPTIONS = {
    "pretrain": (
        *TINY_MODEL,
        "model.heads=4",
        "pretrain.optim.batch_size=32",
        "pretrain.optim.learning_rate=1.0e-2",
        "pretrain.optim.warm_up_steps=2",
        "pretrain.lambda_pointwise=0.2",
    ),
    "post_train": (
        "post_train.pairs.source=mirrored",
        "post_train.optim.batch_size=32",
        "post_train.optim.learning_rate=1.0e-2",
        "post_train.optim.warm_up_steps=2",
        "post_train.optim.epochs=2",
    ),
}


def torchrun(stage: str, processes: int, *options: object) -> subprocess.CompletedProcess[str]:
    script = ROOT / "training" / f"{stage}.py"
    launcher = "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)
    return subprocess.run(
        [sys.executable, *launcher, str(script), *map(str, options)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def last_logits(data: Path, folder: Path) -> torch.Tensor:
    """What the policy of the last epoch gives held-out slates.

    The weights themselves may differ where nothing depends on them: attention ignores the bias of
    its keys, and Adam walks on the rounding of a gradient of 0.
    """
    checkpoint = load_checkpoint(folder / "best.pt")
    model = replace(checkpoint, weights=load_tensors(folder / "state.pt")["model"]).model()
    batch = next(load_slates(data / "valid", checkpoint.spec).batches(64))
    with torch.no_grad():
        return model.block_logits(*model.encode(batch), batch.exposed)


@pytest.mark.parametrize("stage", ["pretrain", "post_train"])
def test_two_processes_train_as_one(
    tiny_data: Path, tiny_policy: Path, tmp_path: Path, stage: str
) -> None:
    options: list[object] = ["--data", tiny_data, *settings(*OPTIONS[stage])]
    if stage == "post_train":
        options += ["--checkpoint", tiny_policy]
    alone, both = tmp_path / "one", tmp_path / "two"
    result = torchrun(stage, 2, *options, "--out", both)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("best epoch") == 1  # the first process alone speaks
    done(APPS[stage], *options, "--out", alone)
    one, two = (epochs(out / stage) for out in (alone, both))
    assert len(one) == len(two) == 3
    for first, second in zip(one, two):
        assert first.keys() == second.keys()
        for name in first:
            # Means over pairs are of each process's own pairs first, of which there may be more
            # in one than in the other.
            of_pairs = name.startswith(("rewards/", "logps/"))
            expected = pytest.approx(first[name], rel=1e-3, abs=0.05 if of_pairs else 1e-4)
            assert second[name] == expected, name
    moved = one[-1]["held_out/logp_exposed"] - one[0]["held_out/logp_exposed"]
    assert abs(moved) > 1e-2  # by more than what may differ
    first_logits, second_logits = (last_logits(tiny_data, out / stage) for out in (alone, both))
    torch.testing.assert_close(second_logits, first_logits, atol=1e-2, rtol=1e-3)


def test_more_processes_than_slates_are_refused(
    tiny_data: Path, tmp_path: Path, tiny_policy: Path
) -> None:
    spec = load_checkpoint(tiny_policy).spec
    slates = load_slates(tiny_data / "train", spec, limit=2)
    model = load_checkpoint(tiny_policy).model()
    stage = Stage(
        name="pretrain",
        objective=PretrainObjective(model, PretrainSettings(), spec.list_size, 0),
        optim=OptimSettings(),
        validate=dict,
        selection="ndcg",
        epochs=1,
        seed=0,
        identity="",
    )
    with pytest.raises(ContractError, match="2 slates for 3 processes"):
        run_stage(stage, slates, tmp_path, Processes(0, 3, torch.device("cpu")))
