"""Profiles: which backend of Triton serves which part of a release, from which format of engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from contracts.reading import ContractError
from contracts.releases import Engine
from training.release.serving_settings import ServingSettings

Part = Literal["encoder", "noise", "decoder", "ensemble"]

#: The file that a backend looks for in a version folder.
ENGINE_FILES = {
    "torchscript": "model.pt",
    "tensorrt": "model.plan",
    "aotinductor": "model.pt2",
}


@dataclass(frozen=True)
class Profile:
    """Attributes:
    format: of the encoder's and the decoder's engine.
    backends: of Triton, for each part that has an engine, in the order of the ensemble's steps.
    """

    format: str
    backends: Mapping[Part, str]


PROFILES = {
    "cpu": Profile("torchscript", {"encoder": "python", "decoder": "python"}),
    "gpu": Profile("torchscript", {"encoder": "pytorch", "decoder": "pytorch"}),
    "tensorrt": Profile(
        "tensorrt", {"encoder": "tensorrt", "noise": "pytorch", "decoder": "tensorrt"}
    ),
    "aoti": Profile("aotinductor", {"encoder": "pytorch", "decoder": "pytorch"}),
}


def parts_of(profile: str) -> tuple[Part, ...]:
    """The models of a release, the ensemble last."""
    return (*PROFILES[profile].backends, "ensemble")


def check_engines_serve(engines: tuple[Engine, ...], serving: ServingSettings) -> None:
    """Can engines be served so?

    Raises:
        ContractError: they have another format than the profile, or a smaller batch.
    """
    profile = PROFILES[serving.profile]
    found = next(engine.format for engine in engines if engine.part == "encoder")
    if found != profile.format:
        fitting = ", ".join(name for name, one in PROFILES.items() if one.format == found)
        raise ContractError(
            f"the engines are {found}, profile {serving.profile} serves {profile.format}; "
            f"publish with profile {fitting}, or export with --engine {profile.format}"
        )
    for engine in engines:
        if engine.max_batch is not None and serving.max_batch_size > engine.max_batch:
            raise ContractError(
                f"max_batch_size is {serving.max_batch_size}, the {engine.part} engine was built "
                f"for {engine.max_batch}; lower it, or export with a larger --max-batch"
            )
