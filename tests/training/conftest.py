"""Datasets and policies that several tests start from; none of them changes these folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.runs import make_data, pretrain_run


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 lists: 160 to train, 20 to validate."""
    return make_data(tmp_path_factory.mktemp("tiny"), 200)


@pytest.fixture(scope="session")
def tiny_policy(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a short pre-training on ``tiny_data``."""
    out = tmp_path_factory.mktemp("tiny-policy")
    return pretrain_run(tiny_data, out, "pretrain.optim.batch_size=32")


@pytest.fixture(scope="session")
def world_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,500 lists of the same world."""
    return make_data(tmp_path_factory.mktemp("world"), 1500)


@pytest.fixture(scope="session")
def shuffled_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same lists with the feedback shuffled among them."""
    return make_data(tmp_path_factory.mktemp("shuffled"), 1500, "--shuffle-feedback")


@pytest.fixture(scope="session")
def world_policy(world_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of pre-training on ``world_data``."""
    out = tmp_path_factory.mktemp("world-policy")
    return pretrain_run(world_data, out, "pretrain.optim.learning_rate=3.0e-3")
