"""Runs of the training commands, small enough for a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import typer
import yaml
from typer.testing import CliRunner, Result

from training import post_train, prepare, pretrain
from training.checkpoint import Checkpoint, load_checkpoint

ROOT = Path(__file__).resolve().parents[2]

#: A world that a small evaluator can learn from 1,500 lists: few items, few users, 12 to 5.
WORLD: dict[str, Any] = {
    "items": 120,
    "categories": 6,
    "users": 80,
    "segments": 4,
    "latent": 8,
    "candidates": 12,
    "list_size": 5,
    "item_spread": 0.7,
    "retrieval": 1.0,
    "given_noise": 1.5,
    "logging_temperature": 0.7,
    "fatigue": 0.8,
}

TINY_MODEL = (
    "model.width=16",
    "model.encoder_layers=1",
    "model.decoder_layers=1",
    "model.attention_heads=2",
    "model.heads=2",
)


def settings(*assignments: str) -> list[str]:
    """``--set`` options."""
    return [word for text in assignments for word in ("--set", text)]


def run(app: typer.Typer, *arguments: object) -> Result:
    """A command in this process; what it prints is in ``output``."""
    return CliRunner().invoke(app, [str(one) for one in arguments], env={"COLUMNS": "1000"})


def done(app: typer.Typer, *arguments: object) -> Result:
    """The same, and it must succeed."""
    result = run(app, *arguments)
    if result.exit_code != 0:
        raise AssertionError(f"exit code {result.exit_code}: {result.output}") from result.exception
    return result


def make_data(folder: Path, lists: int, *options: str, world: dict[str, Any] = WORLD) -> Path:
    """A prepared dataset of a simulated world, at ``folder``/slates."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "world.yaml").write_text(yaml.safe_dump(world))
    source = "--source", "simulator", "--world", folder / "world.yaml", "--lists", lists
    done(prepare.app, *source, "--out", folder / "slates", *options)
    return folder / "slates"


def pretrain_run(data: Path, out: Path, *assignments: str) -> Path:
    """Pre-train a tiny policy; its checkpoint."""
    options = settings(*TINY_MODEL, *assignments)
    done(pretrain.app, "--data", data, "--out", out, *options)
    return out / "pretrain" / "best.pt"


def post_train_run(data: Path, start: Path, out: Path, *assignments: str) -> Result:
    """Post-train a policy; whatever the exit code."""
    options = settings(*assignments)
    return run(post_train.app, "--data", data, "--checkpoint", start, "--out", out, *options)


def epochs(folder: Path) -> list[dict[str, float]]:
    """What a run's history.json says of each epoch, but for how long it took."""
    history = json.loads((folder / "history.json").read_text())
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history["epochs"]]


def assert_same_weights(first: Checkpoint | Path, second: Checkpoint | Path) -> None:
    a, b = (
        (load_checkpoint(one) if isinstance(one, Path) else one).weights for one in (first, second)
    )
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert different == []
