"""The candidate gets engines like the champion's, for it is served where the champion is."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import numpy as np
import pytest

from contracts.encoding import EncodedBatch
from contracts.reading import ContractError, convert
from contracts.releases import Engine, ReleaseManifest
from tests.model.tiny import lively_model
from tests.serving.release_folders import make_release
from training.engines import aotinductor
from training.engines.formats import EngineSettings
from training.engines.packages import this_cpu
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


def package(part: str, **versions: str) -> Engine:
    """An AOTInductor package for a CPU, in bf16."""
    made = {"part": part, "format": "aotinductor", "precision": "bf16", "backend": "python"}
    return convert({**made, "file": PLAN.file, "versions": versions}, Engine, "an engine")


def test_packages_are_compiled_again_for_the_same_cpu(tmp_path: Path) -> None:
    parts = [package(part, cpu="AVX2", torch="2.13.0") for part in ("encoder", "decoder")]
    expected = EngineSettings(format="aotinductor", precision="bf16", cpu="AVX2")
    assert engines_like(manifest(tmp_path, *parts)) == expected


def test_packages_of_a_cpu_that_is_not_here_are_refused_before_compiling(tmp_path: Path) -> None:
    settings = EngineSettings(format="aotinductor", cpu="another")
    with pytest.raises(ContractError, match=r"a CPU with another: .*this machine, which has "):
        aotinductor.save(lively_model(), tmp_path, settings, "omtp")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("versions", [{"cpu": "another"}, {"cpu": this_cpu(), "torch": "1.0.0"}])
def test_code_of_another_cpu_or_torch_is_never_loaded(
    tmp_path: Path, versions: dict[str, str]
) -> None:
    engines = (package("encoder", **versions), package("decoder", **versions))
    name, built = list(versions.items())[-1]
    found = measure(tmp_path, engines, tmp_path, engines, REQUEST, 4)
    assert re.search(rf"compiled for .*{name}.* {built}; this machine has ", found.why, re.I)


def test_engines_that_cannot_run_here_are_not_timed_and_say_why(tmp_path: Path) -> None:
    engines = (PLAN, msgspec.structs.replace(PLAN, part="decoder"))
    found = measure(tmp_path, engines, tmp_path, engines, REQUEST, 4)
    assert "compute capability 8.9" in found.why


def test_a_damaged_torchscript_engine_is_an_error(tmp_path: Path) -> None:
    name = make_release(tmp_path, 1)
    engines = ReleaseStore(tmp_path).manifest(name).engines
    with pytest.raises(ContractError, match="not TorchScript"):
        measure(tmp_path / name, engines, tmp_path / name, engines, REQUEST, 4)
