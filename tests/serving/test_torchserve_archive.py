"""Model archives: the same bytes each time, from a release that is what its manifest says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from typer.testing import CliRunner

from contracts.reading import ContractError, convert, read_json, read_yaml, write_json
from contracts.releases import MANIFEST, ReleaseManifest, file_sha256
from contracts.torchserve import MODEL_CONFIG, HandlerSettings, TorchServeSettings
from handlers import archive as archive_module
from handlers.archive import app, make_archive
from training.release.publishing import publish
from training.release.serving_settings import ServingSettings

pytest.importorskip("model_archiver", reason="needs torch-model-archiver")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def release(toy_release: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_release, tmp_path / "releases" / "r0001"))


def test_the_same_release_gives_the_same_bytes(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_archive(release, tmp_path / "one")
    moved = release.rename(release.with_name("elsewhere"))
    for path in moved.rglob("*"):
        os.utime(path, (1, 1))
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    second = make_archive(moved, tmp_path / "two" / "store")
    assert first.name == second.name == "gref_r0001.mar"
    assert first.read_bytes() == second.read_bytes()
    other = make_archive(moved, tmp_path / "three", TorchServeSettings(batch_size=8))
    assert other.read_bytes() != first.read_bytes()


def test_what_lies_in_it(release: Path, tmp_path: Path) -> None:
    settings = TorchServeSettings(
        max_workers=2, batch_size=16, handler=HandlerSettings(intra_op_threads=2)
    )
    manifest = read_json(release / MANIFEST, ReleaseManifest)
    with zipfile.ZipFile(make_archive(release, tmp_path / "store", settings)) as packed:
        assert packed.testzip() is None
        names = packed.namelist()
        stated = json.loads(packed.read("MAR-INF/MANIFEST.json"))
        config = yaml.safe_load(packed.read(MODEL_CONFIG))
        packed.extractall(tmp_path / "model")
    assert names == sorted(names)
    assert {name for name in names if "/" not in name} == {
        "decoder.pt",
        "encoder.pt",
        "features.yaml",
        "manifest.json",
        "model-config.yaml",
        "torchserve_handler.py",
    }
    assert {name.partition("/")[0] for name in names if "/" in name} == {"MAR-INF", "contracts"}
    assert stated["model"] == {
        "modelName": "gref_r0001",
        "modelVersion": "1.0",
        "handler": "torchserve_handler.py",
        "configFile": MODEL_CONFIG,
    }
    for engine in manifest.engines:
        found = file_sha256(tmp_path / "model" / f"{engine.part}.pt")
        assert found == manifest.files[engine.file]
    assert config == {
        "minWorkers": 1,
        "maxWorkers": 2,
        "batchSize": 16,
        "maxBatchDelay": 1,
        "responseTimeout": 10,
        "startupTimeout": 120,
        "jobQueueSize": 256,
        "maxRetryTimeoutInSec": 60,
        "deviceType": "cpu",
        "handler": {"intra_op_threads": 2, "warmup": True},
    }
    assert read_yaml(tmp_path / "model" / MODEL_CONFIG, TorchServeSettings) == settings


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"batchSize": 0}, "batch_size is 0; allowed: 1"),
        ({"maxBatchDelay": 0}, "max_batch_delay is 0; allowed: 1"),
        ({"minWorkers": 3, "maxWorkers": 2}, "max_workers is 2; allowed: 3"),
        ({"batch_size": 8}, r"unknown \(did you mean batchSize\?\); allowed: minW"),
        ({"deviceType": "gpu"}, "Invalid enum value 'gpu'.*allowed: cpu"),
        ({"handler": {"intra_op_threads": 0}}, "intra_op_threads is 0; allowed: 1"),
    ],
)
def test_settings_that_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ContractError, match=told):
        convert(given, TorchServeSettings, "torchserve.yaml")


def test_a_tampered_release_is_refused(release: Path, tmp_path: Path) -> None:
    engine = next(release.rglob("*_decoder/1/model.pt"))
    content = bytearray(engine.read_bytes())
    content[100] ^= 1
    engine.write_bytes(content)
    with pytest.raises(ContractError, match=r"decoder/1/model.pt was altered"):
        make_archive(release, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_engines_of_another_format_are_refused(release: Path, tmp_path: Path) -> None:
    manifest = read_json(release / MANIFEST, ReleaseManifest)
    engines = tuple(msgspec.structs.replace(one, format="tensorrt") for one in manifest.engines)
    write_json(release / MANIFEST, msgspec.structs.replace(manifest, engines=engines))
    with pytest.raises(ContractError, match="encoder is tensorrt, and what runs here is torchscr"):
        make_archive(release, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_the_gpu_profile_has_the_engines_of_the_cpu_profile(
    toy_engines: Path, toy_release: Path, tmp_path: Path
) -> None:
    """TorchScript for Triton's pytorch backend: an archive of it holds the same two files."""
    release = publish(toy_engines, tmp_path / "releases", ServingSettings(profile="gpu"))
    found = []
    for one in (toy_release, release):
        with zipfile.ZipFile(make_archive(one, tmp_path / one.parent.name)) as packed:
            found.append([packed.read(name) for name in ("encoder.pt", "decoder.pt")])
    assert found[0] == found[1]


def test_an_archiver_that_fails_leaves_the_old_archive(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    before = make_archive(release, store).read_bytes()
    monkeypatch.setattr(archive_module, "HANDLER", tmp_path / "nowhere.py")
    with pytest.raises(ContractError, match=r"archiver failed: [\s\S]*nowhere.py"):
        make_archive(release, store)
    assert [path.name for path in store.iterdir()] == ["gref_r0001.mar"]
    assert (store / "gref_r0001.mar").read_bytes() == before


def test_folders_of_others_and_neighbours_are_left_alone(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archiver itself works in a folder of the model's name in the common temporary one."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    precious = tmp_path / "tmp" / "gref_r0001" / "precious"
    precious.parent.mkdir(parents=True)
    precious.write_text("mine")
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(lambda _: make_archive(release, tmp_path / "store"), range(3)))
    assert precious.read_text() == "mine"
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["gref_r0001.mar"]
    with zipfile.ZipFile(made[0]) as packed:
        assert packed.testzip() is None


def test_the_command(release: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    done = run(app, ["--release", str(release), "--out", str(tmp_path / "store")])
    assert done.exit_code == 0, done.output
    made = tmp_path / "store" / "gref_r0001.mar"
    assert f"sha256 {file_sha256(made)}" in done.output.replace("\n", " ")
    absent = run(app, ["--release", str(tmp_path / "r0009"), "--out", str(tmp_path / "store")])
    assert absent.exit_code == 2
    wrong = tmp_path / "settings.yaml"
    wrong.write_text("batchSize: many\n")
    options = ["--release", str(release), "--out", str(tmp_path), "--settings", str(wrong)]
    refused = run(app, options)
    assert refused.exit_code == 2
    assert "field batchSize: Expected `int`, got `str`" in refused.output


def test_the_command_explains_itself() -> None:
    command = [sys.executable, "handlers/archive.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "python handlers/archive.py --release releases/r0007 --out model_store" in done.stdout
