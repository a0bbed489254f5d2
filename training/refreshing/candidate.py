"""The candidate: Rerank-DPO from the champion, which is its frozen reference."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from contracts.datasets import Dataset
from contracts.features import FeatureSpec
from training.data.arrays import load_slates
from training.distributed import Processes
from training.pairs.examination import estimate_examination
from training.post_train import post_train
from training.refreshing.champion import Champion
from training.refreshing.findings import Training
from training.refreshing.settings import RefreshSettings
from training.settings import PostTrainSettings, TrainingSettings

BEST = Path("post_train") / "best.pt"


def train_candidate(
    champion: Champion,
    slates: Path,
    dataset: Dataset,
    spec: FeatureSpec,
    settings: RefreshSettings,
    out: Path,
    here: Processes,
) -> Training:
    """Train; leaves ``out``/post_train/best.pt. A killed run goes on from its last epoch.

    Raises:
        ContractError: the slates cannot be trained on, or eta cannot be estimated from them.
    """
    post, eta = with_examination(slates, spec, settings)
    typed = TrainingSettings(
        seed=settings.seed,
        model=champion.checkpoint.settings.model,
        pretrain=champion.checkpoint.settings.pretrain,
        post_train=post,
    )
    history = post_train(
        slates, dataset, spec, typed, champion.file, out, here, epoch=settings.epoch
    )
    # As written: strict JSON, in which null stands for what is not finite.
    plain = json.loads((out / "post_train" / "history.json").read_text())
    held_out = [name for name in ("held_out/value", "held_out/ndcg") if name in plain["epochs"][0]]
    return Training(
        best_epoch=history.best_epoch,
        best_score=history.best_score if history.best_epoch >= 0 else 0.0,
        selection=held_out[0].removeprefix("held_out/"),
        alarm=history.alarm,
        examination=eta,
        epochs=tuple(plain["epochs"]),
    )


def with_examination(
    slates: Path, spec: FeatureSpec, settings: RefreshSettings
) -> tuple[PostTrainSettings, float | None]:
    """The post-training settings with the eta that applies, and that eta (None: no correction)."""
    post = settings.post_train
    if settings.examination == "off":
        return post, None
    eta = post.pairs.examination
    if settings.examination == "estimated":
        eta = estimate_examination(load_slates(slates / "train", spec)).usable_eta()
    pairs = msgspec.structs.replace(post.pairs, examination=eta)
    return msgspec.structs.replace(post, pairs=pairs), eta
