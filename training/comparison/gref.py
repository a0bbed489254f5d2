"""GReF as systems: whole, one stage alone, and as published.

Trained by the functions of the commands, from the same settings files, with the same checks and
alarms.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from contracts.datasets import Dataset, read_dataset
from contracts.features import FeatureSpec
from contracts.locking import one_at_a_time
from contracts.reading import Strict, stable_hash
from training.checkpoint import load_checkpoint
from training.comparison.cases import Case
from training.comparison.code_state import code_state
from training.comparison.store import Row
from training.comparison.system import Slates, System, Trained
from training.data.arrays import SlateArrays
from training.data.batch import Batch
from training.decoding.run import make_decode
from training.distributed import Processes
from training.label_store import LabelStore
from training.loop import History
from training.model.gen_reranker import GenReranker
from training.post_train import post_train
from training.pretrain import pretrain
from training.settings import TrainingSettings, override, read_settings
from training.spent import spending, spent

SETTINGS = Path(__file__).resolve().parents[1] / "settings"

#: What its results begin at.
CODE = ("training.pretrain", "training.post_train", "training.decoding.run")

#: The system that the others are paired with.
GREF = "gref"

#: What is tried around GReF's settings: as many trials are drawn from it as from a peer's grid.
_PRETRAIN_GRID: dict[str, tuple[Any, ...]] = {
    "pretrain.optim.learning_rate": (5e-4, 1e-3, 2e-3),
    "pretrain.lambda_o": (0.1, 1.0),
    "pretrain.optim.epochs": (2, 4),
}
_POST_GRID: dict[str, tuple[Any, ...]] = {
    "post_train.optim.learning_rate": (1e-3, 3e-3, 5e-3),
    "post_train.beta": (0.1, 0.3),
    "post_train.distil_temperature": (0.1, 0.3),
}


class Gref:
    """GReF, whole or one of its stages.

    Args:
        changes: settings by dotted field, over those of the data's source.
        stages: which are run. Without pre-training Rerank-DPO starts from untrained weights.
        grid: what trials are drawn from.
    """

    is_gref = True
    code: tuple[str, ...] = CODE
    learns = True

    def __init__(
        self,
        name: str,
        about: str,
        changes: Mapping[str, Any] | None = None,
        stages: tuple[str, ...] = ("pretrain", "post_train"),
        grid: Mapping[str, tuple[Any, ...]] | None = None,
    ) -> None:
        self.name, self.about, self._stages = name, about, stages
        self._changes = dict(changes or {})
        self._grid = dict(grid or {})

    def fits(self, case: Case) -> bool:
        return True

    def trials(self, case: Case, count: int) -> list[Strict]:
        start = override(self.defaults(case), self._changes)
        if "pretrain" not in self._stages:
            start = override(start, {"pretrain.optim.epochs": 0})
        points = [
            override(start, dict(zip(self._grid, point)))
            for point in itertools.product(*self._grid.values())
        ]
        others = [point for point in points if point != start]
        order = np.random.default_rng(case.seed).permutation(len(others))
        return [start, *(others[index] for index in order[: max(0, count - 1)])]

    @staticmethod
    def defaults(case: Case) -> TrainingSettings:
        """The settings file of the case's source, as the commands read it."""
        return override(read_settings(SETTINGS / f"{case.source}.yaml"), case.gref)

    def fit(self, slates: Slates, settings: Strict, seed: int, folder: Path) -> Trained:
        assert isinstance(settings, TrainingSettings)
        settings = msgspec.structs.replace(settings, seed=seed)
        here = Processes(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        dataset, spec = read_dataset(slates.folder)
        kept = slates.folder.parent / f"{slates.folder.name}-labels-{code_state(CODE)[:8]}"
        history, best, saved = _pretrained(slates.folder, dataset, spec, settings, kept, here)
        labels = LabelStore(kept, shared=True)
        if "post_train" in self._stages:
            history = post_train(slates.folder, dataset, spec, settings, best, folder, here, labels)
            best = folder / "post_train" / "best.pt"
        policy = GrefLists(load_checkpoint(best).model(), spec.list_size, history.best_epoch)
        scalars = {name: value for name, value in history.epochs[-1].items() if name != "seconds"}
        return Trained(policy, history.alarm, scalars, saved + labels.saved_seconds)


def _pretrained(
    data: Path,
    dataset: Dataset,
    spec: FeatureSpec,
    settings: TrainingSettings,
    kept: Path,
    here: Processes,
) -> tuple[History, Path, float]:
    """Pre-training, done once for all that differ in the later stage alone.

    Returns:
        Its history, its checkpoint, and the processor seconds that an earlier one had spent on it.
    """
    known = [settings.model, settings.pretrain, settings.seed]
    folder = kept / f"pretrained-{stable_hash(known)[:16]}"
    seconds = folder / "seconds"
    with one_at_a_time(folder / ".lock"):
        saved = spent(seconds)
        with nullcontext() if saved else spending(seconds):
            history = pretrain(data, dataset, spec, settings, folder, here)
    return history, folder / "pretrain" / "best.pt", saved


class GrefLists:
    """A policy's lists by OMTP, as it serves."""

    def __init__(self, model: GenReranker, list_size: int, epochs: int) -> None:
        self.model = model.eval()
        self.decode = make_decode(model, list_size)
        self.epochs = epochs
        self.parameters = sum(value.numel() for value in model.parameters())

    @torch.inference_mode()
    def rerank(self, batch: Batch) -> Tensor:
        """Lists int64 [B, n]."""
        z, prior = self.model.encode(batch)
        cold = torch.zeros(batch.size, 1, device=z.device)
        order: Tensor = self.decode(z, prior, cold, cold.long())[0]
        return order.long()


def untrained(slates: SlateArrays, settings: TrainingSettings) -> GrefLists:
    """GReF's network before training: the same work for each request."""
    torch.manual_seed(0)
    return GrefLists(GenReranker(slates.spec, settings.model), slates.spec.list_size, 0)


def saw_pairs(row: Row) -> bool | None:
    """Whether the chosen epoch of a stored training had seen preference pairs.

    None of a method without such a stage: below the last ``dpo_epochs`` a policy was taught by
    distillation alone (training/objectives.py), and epoch 0 is what pre-training gave.
    """
    post = row.settings.get("post_train")
    if not isinstance(post, dict) or row.method.startswith(f"{GREF}-pre"):
        return None
    first = 1
    if post["dpo_epochs"] and post["distil"]:
        first = post["optim"]["epochs"] - post["dpo_epochs"] + 1
    return bool(post["dpo"]) and row.epoch >= first


PUBLISHED = {
    "model.encoder_layers": 4,
    "model.decoder_layers": 4,
    "model.heads": 4,
    "model.pairwise": [],
    "model.prior": "none",
    "pretrain.given_epochs": 0,
    "pretrain.order_score": "exposure",
    "post_train.pairs.source": "exposure",
    "post_train.distil": 0.0,
    "post_train.beta": 0.1,
    "post_train.likelihood": "none",
    "post_train.optim.epochs": 2,
    "post_train.optim.learning_rate": 3e-4,
}

VARIANTS: tuple[System, ...] = (
    Gref(GREF, "the recipe: pre-training, distillation, Rerank-DPO", grid=_POST_GRID),
    Gref("gref-pre", "pre-training only", stages=("pretrain",), grid=_PRETRAIN_GRID),
    Gref("gref-post", "post-training only, from untrained weights", stages=("post_train",),
         grid=_POST_GRID),
    Gref("gref-published", "the paper's recipe: Eq. 7 pairs, beta 0.1, no likelihood term",
         changes=PUBLISHED, grid={"pretrain.optim.learning_rate": (5e-4, 1e-3, 2e-3),
                                  "post_train.optim.learning_rate": (1e-4, 3e-4, 1e-3),
                                  "post_train.optim.epochs": (1, 2)}),
)  # fmt: skip
