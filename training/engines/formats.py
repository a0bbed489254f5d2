"""The seam between an export and the formats of engines: a module for each format.

A module makes engine files of a model (``save``) and runs them where this machine can (``load``).
Everything else, from the parity gate to the configurations, is the same for all.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, cast, get_args

from contracts.reading import Strict
from contracts.releases import Engine
from training.decoding.run import Mode
from training.engines.parity import Engines, ParitySettings
from training.model.gen_reranker import GenReranker

Format = Literal["torchscript", "tensorrt", "aotinductor"]
Precision = Literal["fp32", "fp16", "bf16"]

#: What rounding may do to scores, and to how many rows' orders by way of ties. docs/engines.md has
#: the differences that were measured.
PARITY: dict[Precision, ParitySettings] = {
    "fp32": ParitySettings(score=1e-4, tied_rows=0.01),
    "fp16": ParitySettings(score=2e-2, tied_rows=0.02),
    "bf16": ParitySettings(score=0.15, tied_rows=0.1),
}


class EngineSettings(Strict, kw_only=True, frozen=True):
    """How engines are built.

    Attributes:
        format: torchscript runs on CPU and GPU alike; tensorrt and aotinductor are built for one
            target.
        precision: of matrix products and attention; scores, masks and choices stay in fp32.
        compute_capability: "8.9" and so on; None is the GPU of this machine, or its CPU.
        cpu: instruction set of compiled code for a CPU ("AVX2"); None is this machine's.
        container: tag of the container that serves, e.g. "26.07-py3"; recorded, and compared
            before loading.
        max_batch: rows of one call.
    """

    format: Format = "torchscript"
    precision: Precision = "fp32"
    compute_capability: str | None = None
    cpu: str | None = None
    container: str | None = None
    max_batch: int = 64

    def __post_init__(self) -> None:
        if not 1 <= self.max_batch <= 1024:
            raise ValueError(f"max_batch is {self.max_batch}; allowed: 1 to 1024")
        if self.format == "torchscript" and self.precision != "fp32":
            raise ValueError(
                f"precision is {self.precision}; allowed for torchscript: fp32 "
                "(fp16 and bf16 are for tensorrt and aotinductor)"
            )
        if self.format == "torchscript" and self.compute_capability:
            raise ValueError(
                f"compute_capability is {self.compute_capability}; torchscript is built for none"
            )


@dataclass(frozen=True)
class Saved:
    """What ``save`` leaves.

    Attributes:
        engines: for the manifest; ``file`` is relative to the folder.
        runs: what the parity gate runs: the files, or what they were built from.
        instead: what the latter is, where the files cannot run on this machine; else empty.
    """

    engines: tuple[Engine, ...]
    runs: Engines
    instead: str = ""


class EngineFormat(Protocol):
    """A module of training/engines that makes one format."""

    def check(self, settings: EngineSettings, mode: Mode) -> None:
        """Can engines be built here, with these settings? As ``save`` asks first.

        Raises:
            ContractError: no; what to do.
        """

    def save(self, model: GenReranker, folder: Path, settings: EngineSettings, mode: Mode) -> Saved:
        """Write the engines of a model into a folder.

        Raises:
            ContractError: they cannot be built here, or not with these settings; what to do.
            OSError: the disk is full, or the folder cannot be written.
        """

    def load(self, folder: Path, engines: Sequence[Engine], list_size: int) -> Engines:
        """Engines of a folder that run.

        Raises:
            ContractError: a file is no engine of this format, or cannot run on this machine.
        """


def engine_format(name: Format) -> EngineFormat:
    """The module of a format; imported only now, for some need libraries that others do not."""
    if name not in get_args(Format):
        raise ValueError(f"no engine format {name!r}; allowed: {', '.join(get_args(Format))}")
    return cast(EngineFormat, importlib.import_module(f"training.engines.{name}"))
