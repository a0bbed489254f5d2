"""Releases on disk for tests of the store: whole and verifiable, but small and without weights.

The store never looks into engines, so their content is a few bytes. Tests that publish, install or
serve use real engines (``toy_engines.py``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contracts.champion import CHAMPION_FILE
from contracts.reading import read_json, write_json, write_yaml
from contracts.releases import (
    CHECKPOINT,
    MANIFEST,
    DataVersion,
    Engine,
    Gate,
    Parents,
    ReleaseManifest,
    file_sha256,
)
from tests.serving.toy_engines import SPEC

GATE = Gate(name="parity", passed=True, value=0.0, limit=0.0)


def make_release(
    releases: Path, number: int, parent: int | None = None, checkpoint: bool = True, **changes: Any
) -> str:
    """Write release ``number``; ``changes`` go into its manifest. Returns its name."""
    name = f"r{number:04d}"
    folder = releases / name
    engines = []
    for part in ("encoder", "decoder"):
        file = f"repository/gref_{name}_{part}/1/model.pt"
        (folder / file).parent.mkdir(parents=True)
        (folder / file).write_text(f"{part} of {name}")
        (folder / file).parents[1].joinpath("config.pbtxt").write_text(f"name: '{name} {part}'")
        engines.append(
            Engine(
                part=part,  # type: ignore[arg-type]
                format="torchscript",
                precision="fp32",
                backend="python",
                file=file,
                versions={"torch": "2"},
            )
        )
    ensemble = folder / "repository" / f"gref_{name}"
    (ensemble / "1").mkdir(parents=True)
    (ensemble / "1" / ".keep").touch()
    (ensemble / "config.pbtxt").write_text(f"name: 'gref_{name}'")
    write_yaml(folder / "features.yaml", SPEC)
    if checkpoint:
        (folder / CHECKPOINT).write_text(f"weights of {name}")
    fields: dict[str, Any] = {
        "name": name,
        "created": "2026-01-02T03:04:05+00:00",
        "parents": Parents(release=f"r{parent:04d}" if parent else None),
        "data": DataVersion(dataset="feedback", fingerprint=f"{number:064x}", last_version=number),
        "feature_spec_sha256": SPEC.hash(),
        "list_size": SPEC.list_size,
        "heads": 1,
        "profile": "cpu",
        "settings": {"seed": number, "optim": {"rate": 0.1}},
        "gates": (GATE,),
        "engines": tuple(engines),
        "metrics": {"ndcg": 0.5 + number / 100},
    }
    write_json(folder / MANIFEST, ReleaseManifest(**{**fields, "files": hashes(folder), **changes}))
    return name


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): file_sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def damage(release: Path) -> None:
    """Alter one byte of an engine."""
    manifest = read_json(release / MANIFEST, ReleaseManifest)
    path = release / manifest.engines[0].file
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def contents(folder: Path) -> dict[str, bytes]:
    """Files by name, without what Triton's Python leaves where it loaded a model."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def record_text(releases: Path) -> str:
    return (releases / CHAMPION_FILE).read_text()
