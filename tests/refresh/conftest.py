"""A champion in a folder of releases and its traffic in a table; no test changes these folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from contracts.slates import Slate
from tests.refresh.traffic import append, traffic
from tests.training.runs import WORLD, done, make_data, post_train_run, pretrain_run
from training import export, publish
from training.checkpoint import Checkpoint, load_checkpoint
from training.sources.world import World, WorldSettings

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def world() -> World:
    return World(WorldSettings(**WORLD))


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """r0001, the champion: pre-trained and post-trained with policy pairs, a tiny model."""
    home = tmp_path_factory.mktemp("champion")
    data = make_data(home, 3500)
    start = pretrain_run(data, home / "run", "pretrain.optim.learning_rate=3.0e-3")
    made = post_train_run(
        data, start, home / "run", "post_train.optim.epochs=1", "post_train.pairs.draws=1"
    )
    assert made.exit_code == 0, made.output
    best = home / "run" / "post_train" / "best.pt"
    done(export.app, "--checkpoint", best, "--data", data, "--out", home / "engines")
    done(publish.app, "--engines", home / "engines", "--out", home / "releases")
    return home / "releases"


@pytest.fixture(scope="session")
def champion(releases: Path) -> Checkpoint:
    return load_checkpoint(releases / "r0001" / "checkpoint.pt")


@pytest.fixture(scope="session")
def slates(world: World, champion: Checkpoint) -> list[Slate]:
    """What the champion has shown, with some exploration, and what people did."""
    return traffic(world, champion, 1500, seed=4, temperature=0.5)


@pytest.fixture(scope="session")
def table(
    slates: list[Slate], champion: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Those slates in a Delta table: versions 1 to 3 hold 500 each."""
    folder = tmp_path_factory.mktemp("feedback") / "table"
    for first in range(0, 1500, 500):
        append(folder, slates[first : first + 500], champion.spec)
    return folder
