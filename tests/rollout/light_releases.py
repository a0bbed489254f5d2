"""Releases for tests of the rollout: published as any other, their engines then made light."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from contracts.champion import CHAMPION_FILE
from contracts.reading import read_json, write_json
from contracts.releases import MANIFEST, ReleaseManifest
from tests.serving.release_folders import hashes
from training.release.publishing import publish

LIGHT_MODEL = Path(__file__).with_name("light_model.py")


def publish_light(engines: Path, releases: Path, count: int) -> None:
    """r0001 to r000<count>; r0001 is the champion."""
    for _ in range(count):
        make_light(publish(engines, releases))
    assert (releases / CHAMPION_FILE).is_file()


def make_light(release: Path) -> None:
    for model in (release / "repository").iterdir():
        if (model / "1" / "model.py").exists():
            shutil.copyfile(LIGHT_MODEL, model / "1" / "model.py")
    manifest = read_json(release / MANIFEST, ReleaseManifest)
    write_json(release / MANIFEST, msgspec.structs.replace(manifest, files=hashes(release)))


def list_of(release: str, count: int, list_size: int) -> list[int]:
    """The order that a light release gives to so many candidates: from an offset of its own on."""
    return [(int(release[1:]) + place) % count for place in range(min(count, list_size))]
