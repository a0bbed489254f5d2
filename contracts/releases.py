"""The release manifest: what was published, what it came from, and a hash of every file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import msgspec

from contracts.reading import ContractError, Strict, read_json

RELEASE_NAME = re.compile(r"^r[0-9]{4,}\Z")
MANIFEST = "manifest.json"
#: The weights, settings and feature spec that the engines were made from: a refresh starts there.
CHECKPOINT = "checkpoint.pt"
#: Folder of a release with the report of the run that made it.
REPORT = "report"


class Parents(Strict, kw_only=True, frozen=True):
    """Lineage: the release this came from, the anchor it started from, the DPO reference."""

    release: str | None = None
    anchor: str | None = None
    reference_sha256: str | None = None


class DataVersion(Strict, kw_only=True, frozen=True):
    """What it was trained on: a dataset with its fingerprint, or a range of table versions."""

    dataset: str
    fingerprint: str
    first_version: int | None = None
    last_version: int | None = None


class Gate(Strict, kw_only=True, frozen=True):
    """One check that a release had to pass."""

    name: str
    passed: bool
    value: float
    limit: float
    detail: str = ""


class Engine(Strict, kw_only=True, frozen=True):
    """How one engine file was built and what it needs to run.

    Attributes:
        part: ``noise`` is there where the decoder takes the noise of sampling as an input.
        backend: Triton's, that serves it.
        versions: of the libraries that built it, by their names in Python; ``cpu`` is the
            instruction set of code that was compiled for a CPU.
        compute_capability: of the GPU that it was built for; None where it runs on any, or on none.
        container: tag of the container that it was built for.
        max_batch: the most rows of a call, where the file has a limit.
        tensors: name of the engine interface -> name in the file, of those that differ.
    """

    part: Literal["encoder", "noise", "decoder"]
    format: Literal["torchscript", "tensorrt", "aotinductor"]
    precision: Literal["fp32", "fp16", "bf16", "int8"]
    backend: str
    file: str
    versions: dict[str, str]
    compute_capability: str | None = None
    container: str | None = None
    max_batch: int | None = None
    tensors: dict[str, str] = msgspec.field(default_factory=dict)


class ReleaseManifest(Strict, kw_only=True, frozen=True):
    """``manifest.json`` of a release directory.

    Attributes:
        name: r0001, r0002, ...
        list_size, heads: n and H, fixed when the engines were made.
        settings: the typed settings of the run, as plain data.
        files: path relative to the manifest -> SHA-256 of the content, of every other file.
        metrics: held-out scores by name, as the run measured them.
    """

    version: Literal[1] = 1
    name: str
    created: str
    parents: Parents
    data: DataVersion
    feature_spec_sha256: str
    list_size: int
    heads: int
    profile: Literal["cpu", "gpu", "tensorrt", "aoti"]
    settings: dict[str, Any]
    gates: tuple[Gate, ...]
    engines: tuple[Engine, ...]
    files: dict[str, str]
    metrics: dict[str, float] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not RELEASE_NAME.match(self.name):
            raise ValueError(f"name {self.name!r}; allowed: r and at least four digits")
        for file in self.files:
            path = PurePosixPath(file)
            if path.is_absolute() or ".." in path.parts or str(path) != file or file == ".":
                raise ValueError(f"files holds {file!r}; allowed: paths inside the release")
        for engine in self.engines:
            if engine.file not in self.files:
                raise ValueError(f"engine file {engine.file!r} has no hash in files")


def find_engine(
    manifest: ReleaseManifest, part: Literal["encoder", "decoder"], formats: Collection[str]
) -> Engine:
    """The engine of one part of a release, in a format that the caller can run.

    Raises:
        ContractError: there is none, or it has another format; both are named.
    """
    for engine in manifest.engines:
        if engine.part == part:
            if engine.format not in formats:
                raise ContractError(
                    f"{manifest.name}: the {part} is {engine.format}, and what runs here is "
                    f"{', '.join(sorted(formats))}; export the release's checkpoint for that"
                )
            return engine
    raise ContractError(f"{manifest.name}: has no {part} engine; publish again")


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def verify_release(folder: Path) -> ReleaseManifest:
    """Read a release's manifest and check every file against it.

    Raises:
        ContractError: no manifest, a file that is missing, altered, or not in the manifest, or a
            symbolic link, whose target could change after the check.
    """
    manifest = read_json(folder / MANIFEST, ReleaseManifest)
    present = set()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise ContractError(f"{folder}: {name} is a symbolic link; publish again")
        if path.is_file() and name != MANIFEST and "__pycache__" not in path.parts:
            present.add(name)
    for extra in sorted(present - set(manifest.files)):
        raise ContractError(f"{folder}: {extra} is not in the manifest; publish again")
    for name, expected in sorted(manifest.files.items()):
        path = folder / name
        if not path.is_file():
            raise ContractError(f"{folder}: {name} is missing; publish again")
        try:
            found = file_sha256(path)
        except OSError as error:
            raise ContractError(f"{folder}: {name} cannot be read: {error}") from error
        if found != expected:
            raise ContractError(
                f"{folder}: {name} was altered (manifest {expected[:12]}, found {found[:12]}); "
                "the release must not be served; publish again"
            )
    return manifest


def settings_of(struct: msgspec.Struct) -> dict[str, Any]:
    """A settings struct as the plain data that a manifest stores."""
    plain: dict[str, Any] = msgspec.to_builtins(struct)
    return plain
