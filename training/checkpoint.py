"""Checkpoints: what a run needs to go on to the same losses, and what later stages load.

A checkpoint is one file, written aside and renamed, of tensors and plain data only, so that it is
read with ``weights_only=True``: a checkpoint can carry no code.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from contracts.datasets import Dataset
from contracts.features import FeatureSpec
from contracts.reading import ContractError, convert, stable_hash
from training.model.gen_reranker import GenReranker
from training.settings import TrainingSettings


@dataclass(frozen=True)
class Checkpoint:
    """A trained model with all that it was made from.

    Attributes:
        stage: "pretrain" or "post_train".
        data: dataset name and fingerprint.
        parents: SHA-256 of the weights that the stage started from, and of the DPO reference.
        scores: held-out scores at the chosen epoch.
        evaluators: weights of the evaluators that labelled and judged policy pairs, by name: the
            next post-training starts from what they know. Empty for other stages and pairs.
    """

    spec: FeatureSpec
    settings: TrainingSettings
    stage: str
    weights: dict[str, Tensor]
    data: dict[str, str]
    parents: dict[str, str]
    scores: dict[str, float]
    evaluators: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def model(self) -> GenReranker:
        """The model with these weights, in eval mode; ContractError where they do not fit it."""
        model = GenReranker(self.spec, self.settings.model)
        try:
            model.load_state_dict(self.weights)
        except RuntimeError as error:
            cause = " ".join(str(error).split())
            raise ContractError(f"weights do not fit the model's settings: {cause}") from error
        return model.eval()


def data_identity(dataset: Dataset) -> str:
    """A hash of all that the slates of a dataset depend on.

    The fingerprint alone is that of the input: other settings make other slates of it.
    """
    return stable_hash(msgspec.structs.replace(dataset, facts={}))


def weights_sha256(weights: dict[str, Tensor]) -> str:
    """A hash of names, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically."""
    save_atomically(
        path,
        {
            "spec": msgspec.to_builtins(checkpoint.spec),
            "settings": msgspec.to_builtins(checkpoint.settings),
            "stage": checkpoint.stage,
            "weights": {name: value.detach().cpu() for name, value in checkpoint.weights.items()},
            "data": checkpoint.data,
            "parents": checkpoint.parents,
            "scores": checkpoint.scores,
            "evaluators": {
                name: {key: value.detach().cpu() for key, value in weights.items()}
                for name, weights in checkpoint.evaluators.items()
            },
        },
    )


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; raises ContractError when it is missing or damaged."""
    raw = load_tensors(path)
    needed = [one.name for one in fields(Checkpoint) if one.name != "evaluators"]
    missing = [name for name in needed if name not in raw]
    if missing:
        raise ContractError(f"{path}: not a checkpoint of a policy; no {', '.join(missing)}")
    weights = raw["weights"]
    if not (isinstance(weights, dict) and all(map(torch.is_tensor, weights.values()))):
        raise ContractError(f"{path}: weights must be tensors by name")
    return Checkpoint(
        spec=convert(raw["spec"], FeatureSpec, f"{path}: spec"),
        settings=convert(raw["settings"], TrainingSettings, f"{path}: settings"),
        stage=raw["stage"],
        weights=weights,
        data=raw["data"],
        parents=raw["parents"],
        scores=raw["scores"],
        evaluators=raw.get("evaluators", {}),
    )


def save_atomically(path: Path, state: dict[str, Any]) -> None:
    """torch.save beside the target, then rename: a crash leaves the old file.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    packed = io.BytesIO()  # torch hides the cause where writing to the file itself fails
    torch.save(state, packed)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("wb") as file:
            file.write(packed.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
    except OSError as error:
        raise OSError(error.errno, f"cannot be written: {error.strerror}", str(path)) from error
    finally:
        aside.unlink(missing_ok=True)


def load_tensors(path: Path) -> dict[str, Any]:
    """torch.load without code; raises ContractError when the file is missing or damaged."""
    if not path.is_file():
        raise ContractError(f"{path}: no such checkpoint")
    try:
        # torch does not look at the checksums of the archive that it writes.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        state = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both raise many kinds for a damaged file
        raise ContractError(
            f"{path}: damaged, or not a checkpoint of tensors and plain data alone"
        ) from error
    if damaged:
        raise ContractError(f"{path}: damaged: wrong checksum of {damaged}")
    if not isinstance(state, dict):
        raise ContractError(f"{path}: not a checkpoint of this project")
    return state
