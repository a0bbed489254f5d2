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
    formats: of the encoder's and the decoder's engine, the usual one first.
    backends: of Triton, for each part that has an engine, in the order of the ensemble's steps.
    """

    formats: tuple[str, ...]
    backends: Mapping[Part, str]


PROFILES = {
    "cpu": Profile(("torchscript", "aotinductor"), {"encoder": "python", "decoder": "python"}),
    "gpu": Profile(("torchscript",), {"encoder": "pytorch", "decoder": "pytorch"}),
    "tensorrt": Profile(
        ("tensorrt",), {"encoder": "tensorrt", "noise": "pytorch", "decoder": "tensorrt"}
    ),
    "aoti": Profile(("aotinductor",), {"encoder": "pytorch", "decoder": "pytorch"}),
}


def parts_of(profile: str) -> tuple[Part, ...]:
    """The models of a release, the ensemble last."""
    return (*PROFILES[profile].backends, "ensemble")


def check_engines_serve(engines: tuple[Engine, ...], serving: ServingSettings) -> None:
    """Can engines be served so?

    Raises:
        ContractError: the profile does not serve their format or their target, or they have a
            smaller batch.
    """
    profile = PROFILES[serving.profile]
    found = next(engine.format for engine in engines if engine.part == "encoder")
    if found not in profile.formats:
        fitting = " or ".join(name for name, one in PROFILES.items() if found in one.formats)
        raise ContractError(
            f"the engines are {found}, profile {serving.profile} serves "
            f"{' or '.join(profile.formats)}; publish with profile {fitting}, or export with "
            f"--engine {profile.formats[0]}"
        )
    built_for = next((one.compute_capability for one in engines if one.compute_capability), None)
    if serving.profile == "cpu" and built_for is not None:
        raise ContractError(
            f"the engines were compiled for compute capability {built_for}, and profile cpu has "
            "no GPU; publish with profile aoti, or export where there is none"
        )
    for engine in engines:
        if engine.max_batch is not None and serving.max_batch_size > engine.max_batch:
            raise ContractError(
                f"max_batch_size is {serving.max_batch_size}, the {engine.part} engine was built "
                f"for {engine.max_batch}; lower it, or export with a larger --max-batch"
            )
