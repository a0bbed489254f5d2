"""A release is served only as it was published: every departure is found and named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from contracts.reading import ContractError, convert, write_json
from contracts.releases import (
    DataVersion,
    Engine,
    Gate,
    Parents,
    ReleaseManifest,
    file_sha256,
    verify_release,
)

ENGINES = {"encoder": "models/encoder/1/model.pt", "decoder": "models/decoder/1/model.pt"}


def manifest(folder: Path, **changes: Any) -> ReleaseManifest:
    fields: dict[str, Any] = {
        "name": "r0007",
        "created": "2026-01-02T03:04:05+00:00",
        "parents": Parents(),
        "data": DataVersion(dataset="simulator", fingerprint="0" * 64),
        "feature_spec_sha256": "0" * 64,
        "list_size": 10,
        "heads": 4,
        "profile": "cpu",
        "settings": {"seed": 1},
        "gates": (Gate(name="parity", passed=True, value=0.0, limit=0.0),),
        "engines": tuple(
            Engine(
                part=part,
                format="torchscript",
                precision="fp32",
                backend="python",
                file=file,
                versions={"torch": "2"},
            )
            for part, file in ENGINES.items()
        ),
        "files": {
            path.relative_to(folder).as_posix(): file_sha256(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
    }
    return ReleaseManifest(**{**fields, **changes})


@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "r0007"
    for index, file in enumerate(ENGINES.values()):
        (folder / file).parent.mkdir(parents=True)
        (folder / file).write_bytes(bytes([index]) * 3_000_000)
    (folder / "config.pbtxt").write_text("name: 'gref_r0007'")
    write_json(folder / "manifest.json", manifest(folder))
    return folder


def test_an_untouched_release(release: Path) -> None:
    assert verify_release(release) == manifest_without_itself(release)


def manifest_without_itself(folder: Path) -> ReleaseManifest:
    made = manifest(folder)
    files = {name: digest for name, digest in made.files.items() if name != "manifest.json"}
    return manifest(folder, files=files)


def test_bytecode_is_no_departure(release: Path) -> None:
    """Python may write it when the server's own setting against it is forgotten."""
    cache = release / "models" / "encoder" / "1" / "__pycache__"
    cache.mkdir()
    (cache / "model.cpython-311.pyc").write_bytes(b"x")
    verify_release(release)


def alter(folder: Path) -> None:
    with (folder / ENGINES["decoder"]).open("r+b") as file:
        file.seek(2_999_999)
        file.write(b"\x07")


def truncate(folder: Path) -> None:
    with (folder / ENGINES["decoder"]).open("r+b") as file:
        file.truncate(1_000)


def link(folder: Path) -> None:
    target = folder.parent / "elsewhere.pt"
    (folder / ENGINES["decoder"]).rename(target)
    (folder / ENGINES["decoder"]).symlink_to(target)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (alter, "models/decoder/1/model.pt was altered (manifest "),
        (truncate, "models/decoder/1/model.pt was altered (manifest "),
        (lambda f: (f / ENGINES["decoder"]).unlink(), "models/decoder/1/model.pt is missing"),
        (lambda f: (f / "config.pbtxt").unlink(), "config.pbtxt is missing"),
        (lambda f: (f / "extra.py").touch(), "extra.py is not in the manifest"),
        (
            lambda f: (f / "models" / "manifest.json").touch(),
            "models/manifest.json is not in the manifest",
        ),
        (link, "models/decoder/1/model.pt is a symbolic link"),
        (lambda f: (f / "manifest.json").unlink(), "manifest.json: no such file"),
        (lambda f: (f / "manifest.json").write_text("{"), "manifest.json: not valid JSON"),
    ],
)
def test_departures(release: Path, damage: Any, message: str) -> None:
    verify_release(release)
    damage(release)
    with pytest.raises(ContractError) as error:
        verify_release(release)
    assert str(error.value).startswith(str(release))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "r7"}, "name 'r7'; allowed: r and at least four digits"),
        ({"name": "r0007\n"}, "allowed: r and at least four digits"),
        ({"files": {"../outside": "0"}}, "files holds '../outside'; allowed: paths inside"),
        ({"files": {"/etc/passwd": "0"}}, "files holds '/etc/passwd'; allowed: paths inside"),
        ({"files": {}}, "engine file 'models/encoder/1/model.pt' has no hash in files"),
        (
            {"profile": "tpu"},
            "field profile: Invalid enum value 'tpu'; allowed: cpu, gpu, tensorrt, aoti",
        ),
        ({"heads": "4"}, "field heads: Expected `int`, got `str`"),
        ({"version": 2}, "field version: Invalid enum value 2; allowed: 1"),
    ],
)
def test_impossible_manifests(release: Path, change: dict[str, Any], message: str) -> None:
    plain = {**msgspec.to_builtins(manifest(release)), **change}
    with pytest.raises(ContractError) as error:
        convert(plain, ReleaseManifest, "manifest.json")
    assert message in str(error.value)
