"""A policy that evaluators were distilled into is softened once it is trained, and no other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.training.runs import assert_same_weights, make_data, post_train_run, pretrain_run
from training.checkpoint import load_checkpoint
from training.model.gen_reranker import GenReranker

LEARN = (
    "post_train.optim.epochs=4",
    "post_train.optim.learning_rate=0.01",
    "post_train.pairs.beam=1",
    "post_train.pairs.evaluator.labellers=1",
    # Their gate is not asked here: 1,600 lists are few.
    "post_train.pairs.evaluator.min_gain=-1",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), 1600)


@pytest.fixture(scope="module")
def start(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain_run(data, tmp_path_factory.mktemp("start"), "pretrain.optim.epochs=1")


def trained(data: Path, start: Path, out: Path, *assignments: str) -> Path:
    result = post_train_run(data, start, out, *LEARN, *assignments)
    assert result.exit_code == 0, result.output
    return out / "post_train" / "best.pt"


def scales(model: GenReranker) -> list[torch.Tensor]:
    decoder = model.decoder
    return [decoder.query.weight, decoder.query.bias, decoder.fading, model.encoder.position_prior]


def test_what_was_distilled_is_softened_once_also_by_a_run_gone_on_with(
    data: Path, start: Path, tmp_path: Path
) -> None:
    sharp = load_checkpoint(trained(data, start, tmp_path / "sharp", "post_train.soften=1"))
    history = json.loads((tmp_path / "sharp" / "post_train" / "history.json").read_text())
    assert history["best_epoch"] > 0, history
    soft = trained(data, start, tmp_path / "soft", "post_train.soften=2")
    for one, other in zip(scales(sharp.model()), scales(load_checkpoint(soft).model())):
        torch.testing.assert_close(one / 2, other, rtol=1e-6, atol=1e-8)
    first = tmp_path / "first.pt"
    shutil.copy(soft, first)
    assert_same_weights(first, trained(data, start, tmp_path / "soft", "post_train.soften=2"))


@pytest.mark.parametrize(
    "assignments",
    [
        ("post_train.pairs.source=mirrored",),
        ("post_train.distil=0", "post_train.dpo_epochs=0"),
        # No epoch was better: what comes out is the policy that came in, as it came in.
        ("post_train.optim.epochs=0",),
    ],
)
def test_others_are_left_as_they_are(
    data: Path, start: Path, tmp_path: Path, assignments: tuple[str, ...]
) -> None:
    plain = trained(data, start, tmp_path / "one", *assignments, "post_train.soften=1")
    asked = trained(data, start, tmp_path / "two", *assignments, "post_train.soften=2")
    assert_same_weights(plain, asked)
