"""The candidate gets engines like the champion's, for it is served where the champion is."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from contracts.encoding import EncodedBatch
from contracts.reading import ContractError
from contracts.releases import Engine, ReleaseManifest
from tests.serving.release_folders import make_release
from training.engines.formats import EngineSettings
from training.refreshing.latency import measure
from training.refreshing.publishing import engines_like
from training.release.store import ReleaseStore

PLAN = Engine(
    part="encoder",
    format="tensorrt",
    precision="fp16",
    backend="tensorrt",
    file="model.plan",
    versions={"tensorrt": "10.13.2"},
    compute_capability="8.9",
    container="26.07-py3",
    max_batch=128,
)
REQUEST = EncodedBatch(
    item_cat=np.ones((1, 16, 1), np.int32),
    item_dense=np.zeros((1, 16, 1), np.float32),
    user_cat=np.ones((1, 1), np.int32),
    user_dense=np.zeros((1, 1), np.float32),
    count=np.full((1, 1), 5, np.int32),
)


def manifest(folder: Path, *engines: Engine) -> ReleaseManifest:
    found = ReleaseStore(folder).manifest(make_release(folder, 1))
    files = {**found.files, PLAN.file: "0" * 64}
    return msgspec.structs.replace(found, engines=engines or found.engines, files=files)


def test_torchscript_stays_torchscript(tmp_path: Path) -> None:
    assert engines_like(manifest(tmp_path)) == EngineSettings()


def test_a_plan_is_built_again_for_the_same_target(tmp_path: Path) -> None:
    decoder = msgspec.structs.replace(PLAN, part="decoder")
    assert engines_like(manifest(tmp_path, PLAN, decoder)) == EngineSettings(
        format="tensorrt",
        precision="fp16",
        compute_capability="8.9",
        container="26.07-py3",
        max_batch=128,
    )


def test_engines_that_cannot_run_here_are_not_timed_and_say_why(tmp_path: Path) -> None:
    engines = (PLAN, msgspec.structs.replace(PLAN, part="decoder"))
    found = measure(tmp_path, engines, tmp_path, engines, REQUEST, 4)
    assert "compute capability 8.9" in found.why


def test_a_damaged_torchscript_engine_is_an_error(tmp_path: Path) -> None:
    name = make_release(tmp_path, 1)
    engines = ReleaseStore(tmp_path).manifest(name).engines
    with pytest.raises(ContractError, match="not TorchScript"):
        measure(tmp_path / name, engines, tmp_path / name, engines, REQUEST, 4)
