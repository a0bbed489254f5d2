"""A release carries what the next refresh needs: checkpoint, lineage, data, gates, report."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import msgspec
import pytest
import torch

from contracts.encoding import FeatureEncoder
from contracts.reading import ContractError, read_json, write_json
from contracts.releases import (
    CHECKPOINT,
    DataVersion,
    Gate,
    Parents,
    ReleaseManifest,
    file_sha256,
    verify_release,
)
from tests.serving.release_folders import contents
from tests.serving.toy_engines import SPEC, toy_request
from training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, weights_sha256
from training.export import export_engines
from training.model.gen_reranker import GenReranker
from training.release.engines_folder import ENGINES_FILE, EnginesFile
from training.release.publishing import GateRefusedError, publish
from training.release.store import ReleaseStore
from training.settings import ModelSettings, TrainingSettings

pytestmark = pytest.mark.timeout(180)
SETTINGS = TrainingSettings(
    model=ModelSettings(width=8, encoder_layers=1, decoder_layers=1, attention_heads=2, heads=2)
)


def tiny_checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    return Checkpoint(
        spec=SPEC,
        settings=SETTINGS,
        stage="post_train",
        weights=GenReranker(SPEC, SETTINGS.model).state_dict(),
        data={"dataset": "toy", "fingerprint": "0"},
        parents={"anchor": "a" * 64, "reference_sha256": "b" * 64},
        scores={"ndcg": 0.5, "loss": float("nan")},
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real export of a tiny model with random weights."""
    folder = tmp_path_factory.mktemp("export") / "engines"
    requests = [FeatureEncoder(SPEC).encode([toy_request(1, 5), toy_request(2, 8)])]
    data = DataVersion(dataset="toy", fingerprint="0")
    gates = export_engines(tiny_checkpoint(), requests, data, folder)
    assert all(gate.passed for gate in gates)
    return folder


@pytest.fixture
def engines(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "engines"))


def test_the_checkpoint_travels(exported: Path, tmp_path: Path) -> None:
    release = publish(exported, tmp_path)
    manifest = verify_release(release)
    assert manifest.files[CHECKPOINT] == file_sha256(exported / CHECKPOINT)
    checkpoint = load_checkpoint(ReleaseStore(tmp_path).checkpoint("r0001"))
    original = tiny_checkpoint()
    assert weights_sha256(checkpoint.weights) == weights_sha256(original.weights)
    assert (checkpoint.spec, checkpoint.settings) == (original.spec, original.settings)
    assert manifest.parents == Parents(anchor="a" * 64, reference_sha256="b" * 64)
    assert manifest.metrics == {"ndcg": 0.5}, "what is no number is left out"


def test_what_a_refresh_says(exported: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    (report / "plots").mkdir(parents=True)
    (report / "report.md").write_text("# Refresh")
    (report / "plots" / "drift.png").write_bytes(b"png")
    releases = tmp_path / "releases"
    publish(exported, releases)
    parents = Parents(release="r0001", anchor="c" * 64, reference_sha256="d" * 64)
    data = DataVersion(dataset="feedback", fingerprint="e", first_version=3, last_version=7)
    gate = Gate(name="drift", passed=True, value=0.1, limit=0.3, detail="from the anchor")
    release = publish(
        exported,
        releases,
        parents=parents,
        data=data,
        gates=(gate,),
        metrics={"snips": 0.7},
        report=report,
    )
    manifest = verify_release(release)
    assert (manifest.parents, manifest.data, manifest.gates[-1]) == (parents, data, gate)
    assert len(manifest.gates) == 7, "the parity gates stand beside it"
    assert manifest.metrics == {"ndcg": 0.5, "snips": 0.7}
    assert contents(release / "report") == contents(report)
    assert {"report/report.md", "report/plots/drift.png"} <= set(manifest.files)
    assert [step.name for step in ReleaseStore(releases).lineage("r0002")] == ["r0002", "r0001"]
    alone = publish(exported, releases, report=report / "report.md")
    assert contents(alone / "report") == {"report.md": b"# Refresh"}


def test_a_refresh_that_is_refused(exported: Path, tmp_path: Path) -> None:
    bad = Gate(name="drift", passed=False, value=0.5, limit=0.3)
    with pytest.raises(GateRefusedError, match=r"drift is 0\.5, limit 0\.3"):
        publish(exported, tmp_path / "releases", gates=(bad,))
    good = msgspec.structs.replace(bad, passed=True)
    for given, cause in (
        ({"gates": (good, good)}, "gate drift is there twice"),
        (
            {"gates": (msgspec.structs.replace(good, value=float("nan")),)},
            "gate drift: value or limit is not a finite number",
        ),
        ({"metrics": {"snips": float("inf")}}, "metric snips is not a finite number"),
    ):
        with pytest.raises(ContractError, match=cause):
            publish(exported, tmp_path / "releases", **given)
    assert not (tmp_path / "releases").exists()


def test_a_parent_or_report_that_is_not_there(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no release r0001; publish one"):
        publish(exported, tmp_path / "releases", parents=Parents(release="r0001"))
    with pytest.raises(ContractError, match="no such report"):
        publish(exported, tmp_path / "releases", report=tmp_path / "nowhere")
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "link").symlink_to("/etc/hostname")
    with pytest.raises(ContractError, match="link: a link; allowed in a report"):
        publish(exported, tmp_path / "releases", report=tmp_path / "report")
    store = ReleaseStore(tmp_path / "releases")
    assert store.names() == ()
    assert not list(store.folder.glob(".staging-*"))


def rewrite(engines: Path) -> None:
    """Bring the hashes of engines.json up to date: the damage was done before it was written."""
    old = read_json(engines / ENGINES_FILE, EnginesFile)
    files = {name: file_sha256(engines / name) for name in old.files}
    write_json(engines / ENGINES_FILE, msgspec.structs.replace(old, files=files))


def test_a_damaged_checkpoint(engines: Path, tmp_path: Path) -> None:
    path = engines / CHECKPOINT
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ContractError, match=r"checkpoint\.pt: altered or cut short.*export again"):
        publish(engines, tmp_path / "releases")
    rewrite(engines)
    with pytest.raises(ContractError, match=r"checkpoint\.pt: damaged"):
        publish(engines, tmp_path / "releases")
    spec = msgspec.structs.replace(SPEC, candidate_buckets=(8, 16))
    save_checkpoint(path, dataclasses.replace(tiny_checkpoint(), spec=spec))
    rewrite(engines)
    with pytest.raises(ContractError, match=r"checkpoint\.pt: feature spec .*export again"):
        publish(engines, tmp_path / "releases")
    save_checkpoint(path, dataclasses.replace(tiny_checkpoint(), weights={}))
    rewrite(engines)
    with pytest.raises(ContractError, match="weights do not fit the model's settings"):
        publish(engines, tmp_path / "releases")
    path.unlink()
    with pytest.raises(ContractError, match=r"checkpoint\.pt: no such file"):
        publish(engines, tmp_path / "releases")
    assert not (tmp_path / "releases").exists()


def test_an_export_from_before_checkpoints(toy_engines: Path, tmp_path: Path) -> None:
    release = publish(toy_engines, tmp_path)
    assert CHECKPOINT not in verify_release(release).files
    assert isinstance(ReleaseStore(tmp_path).manifest("r0001"), ReleaseManifest)
    with pytest.raises(ContractError, match="published without its checkpoint"):
        ReleaseStore(tmp_path).checkpoint("r0001")
