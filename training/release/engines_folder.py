"""What an export leaves for publishing: engine files, the feature spec and ``engines.json``.

engines/
  encoder.pt decoder.pt   as engines.json names them; encoder.plan, noise.pt, decoder.plan, ...
  checkpoint.pt           the checkpoint they were made from
  features.yaml           the feature spec they were made for
  engines.json            EnginesFile
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from contracts.features import FeatureSpec
from contracts.reading import ContractError, Strict, read_json, read_yaml, write_json, write_yaml
from contracts.releases import CHECKPOINT, DataVersion, Engine, Gate, Parents, file_sha256

ENGINES_FILE = "engines.json"
FEATURES_FILE = "features.yaml"


class EnginesFile(Strict, kw_only=True, frozen=True):
    """``engines.json``: how the engines beside it were made, and their gates.

    Attributes:
        engines: one encoder and one decoder, and between them a noise engine where the decoder
            takes NOISE; ``file`` is relative to the folder.
        feature_spec_sha256: hash of the spec in ``features.yaml``.
        list_size, heads: n and H, fixed in the decoder.
        settings: the typed settings of the run, as plain data.
        gates: parity and whatever else was checked; publishing refuses one that did not pass.
        files: engine file -> SHA-256, so that a copy cut short is found before it is published;
            the checkpoint's too, where the folder has one.
        metrics: held-out scores of the checkpoint.
        width: D, of engines that publishing need not be able to run; the export checked them.
    """

    version: Literal[1] = 1
    engines: tuple[Engine, ...]
    feature_spec_sha256: str
    list_size: int
    heads: int
    settings: dict[str, Any]
    data: DataVersion
    parents: Parents = Parents()
    gates: tuple[Gate, ...]
    files: dict[str, str]
    metrics: dict[str, float] = msgspec.field(default_factory=dict)
    width: int | None = None

    def __post_init__(self) -> None:
        parts = sorted(engine.part for engine in self.engines)
        if parts not in (["decoder", "encoder"], ["decoder", "encoder", "noise"]):
            raise ValueError(f"engines are {parts}; allowed: one encoder and one decoder")
        for engine in self.engines:
            if Path(engine.file).name != engine.file:
                raise ValueError(f"file {engine.file!r}; allowed: a name without folders")
            if engine.file not in self.files:
                raise ValueError(f"files holds no sha256 of {engine.file}")
        known = {CHECKPOINT, *(engine.file for engine in self.engines)}
        if unknown := sorted(set(self.files) - known):
            raise ValueError(f"files holds {unknown[0]}; allowed: {', '.join(sorted(known))}")

    def engine(self, part: Literal["encoder", "noise", "decoder"]) -> Engine:
        return next(engine for engine in self.engines if engine.part == part)


def write_engines_folder(folder: Path, engines: EnginesFile, spec: FeatureSpec) -> None:
    """Write ``features.yaml`` and ``engines.json`` beside engine files that are already there."""
    write_yaml(folder / FEATURES_FILE, spec)
    write_json(folder / ENGINES_FILE, engines)


def read_engines_folder(folder: Path) -> tuple[EnginesFile, FeatureSpec]:
    """Read and check an engines folder.

    Raises:
        ContractError: a file is missing, unreadable, altered, or made for another feature spec.
    """
    engines = read_json(folder / ENGINES_FILE, EnginesFile)
    spec = read_yaml(folder / FEATURES_FILE, FeatureSpec)
    if spec.hash() != engines.feature_spec_sha256:
        raise ContractError(
            f"{folder / FEATURES_FILE}: hash {spec.hash()[:12]}, but the engines were made for "
            f"{engines.feature_spec_sha256[:12]}; export again"
        )
    if spec.list_size != engines.list_size:
        raise ContractError(
            f"{folder}: the spec's list_size is {spec.list_size}, the engines' "
            f"{engines.list_size}; export again"
        )
    for file, expected in engines.files.items():
        path = folder / file
        if not path.is_file():
            raise ContractError(f"{path}: no such file; export again")
        found = file_sha256(path)
        if found != expected:
            raise ContractError(
                f"{path}: altered or cut short (engines.json says {expected[:12]}, "
                f"found {found[:12]}); export again"
            )
    return engines, spec
