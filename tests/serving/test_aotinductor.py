"""AOTInductor packages, compiled for the CPU of this machine and run against eager."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from contracts.datasets import read_dataset
from contracts.engine_fit import EngineMismatchError, ServingMachine
from contracts.reading import ContractError
from contracts.releases import verify_release
from tests.model.tiny import SPEC, lively_model, model_settings
from tests.training.runs import done, make_data
from training import export
from training.checkpoint import Checkpoint, save_checkpoint
from training.engines import aotinductor
from training.engines.formats import EngineSettings
from training.engines.plan_builder import this_gpu
from training.model.gen_reranker import GenReranker
from training.release.engines_folder import read_engines_folder
from training.release.installing import install
from training.release.publishing import publish
from training.release.serving_settings import ServingSettings
from training.settings import TrainingSettings

#: Two compilations by g++ for each export.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(580)]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command leaves; it has run the packages against eager, greedy and sampled."""
    folder = tmp_path_factory.mktemp("aoti")
    slates = make_data(folder, 400)
    dataset, spec = read_dataset(slates)
    torch.manual_seed(0)
    settings = TrainingSettings(model=model_settings(width=8, decoder_layers=1, heads=4))
    checkpoint = Checkpoint(
        spec=spec,
        settings=settings,
        stage="pretrain",
        weights=GenReranker(spec, settings.model).state_dict(),
        data={"dataset": dataset.source, "fingerprint": dataset.fingerprint},
        parents={},
        scores={},
    )
    save_checkpoint(folder / "best.pt", checkpoint)
    options = ("--checkpoint", folder / "best.pt", "--data", slates, "--out", folder / "engines")
    done(export.app, *options, "--engine", "aotinductor")
    return folder / "engines"


def test_packages_pass_the_parity_gates_themselves(engines: Path) -> None:
    found, _ = read_engines_folder(engines)
    assert len(found.gates) == 6
    for gate in found.gates:
        assert gate.passed
        assert not gate.name.startswith("parity.graph")
    for engine in found.engines:
        assert (engine.format, engine.compute_capability) == ("aotinductor", this_gpu())
        assert ("cpu" in engine.versions) == (this_gpu() is None)


def test_batches_and_buckets_of_any_size(engines: Path) -> None:
    found, spec = read_engines_folder(engines)
    runs = aotinductor.load(engines, found.engines, spec.list_size)
    for rows, candidates in ((1, 2), (1, 512), (64, 30), (3, 16)):
        z, prior = runs.encode(
            torch.ones(rows, candidates, spec.item.categorical_columns, dtype=torch.int32),
            torch.zeros(rows, candidates, spec.item.dense_columns),
            torch.full((rows, spec.user.categorical_columns), 2**31 - 1, dtype=torch.int32),
            torch.zeros(rows, spec.user.dense_columns),
            torch.full((rows, 1), candidates, dtype=torch.int32),
        )
        assert (len(z), prior.shape) == (rows, (rows, candidates))
        assert z.isfinite().all(), "a category beyond its table"


#: In a process of its own, since what it tries may end it.
TOO_MANY = """
import sys, torch
encode = torch._inductor.aoti_load_package(sys.argv[1])
c, e, u, v = map(int, sys.argv[2:])
encode(torch.ones(1, 600, c, dtype=torch.int32), torch.zeros(1, 600, e),
       torch.ones(1, u, dtype=torch.int32), torch.zeros(1, v),
       torch.full((1, 1), 600, dtype=torch.int32))
"""


def test_more_candidates_than_positions_are_refused_where_inputs_are_checked(
    engines: Path,
) -> None:
    found, spec = read_engines_folder(engines)
    widths = (
        spec.item.categorical_columns,
        spec.item.dense_columns,
        spec.user.categorical_columns,
        spec.user.dense_columns,
    )
    done = subprocess.run(
        [sys.executable, "-c", TOO_MANY, str(engines / "encoder.pt2"), *map(str, widths)],
        env={**os.environ, "AOTI_RUNTIME_CHECK_INPUTS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, "an exception, not a crash"
    assert "512" in done.stderr


def test_a_release_of_packages(engines: Path, tmp_path: Path) -> None:
    release = publish(engines, tmp_path / "releases", ServingSettings(profile="aoti"))
    manifest = verify_release(release)
    for engine in manifest.engines:
        assert engine.file.endswith("/1/model.pt2")
        text = (release / engine.file).parents[1].joinpath("config.pbtxt").read_text()
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
        assert (config.platform, config.backend) == ("torch_aoti", "pytorch")
        kind = "KIND_CPU" if this_gpu() is None else "KIND_GPU"
        assert config.instance_group[0].kind == config.instance_group[0].Kind.Value(kind)
    other = ServingMachine(cpu="another", compute_capability="another")
    with pytest.raises(EngineMismatchError, match="this machine has another"):
        install(release, tmp_path / "served", machine=lambda: other)
    assert install(release, tmp_path / "served")


def test_a_file_that_is_no_package(engines: Path, tmp_path: Path) -> None:
    found, _ = read_engines_folder(engines)
    for engine in found.engines:
        (tmp_path / engine.file).write_bytes(np.random.default_rng(0).bytes(1000))
    with pytest.raises(ContractError, match="not an AOTInductor package"):
        aotinductor.load(tmp_path, found.engines, SPEC.list_size)


def test_another_target_than_this_machine(tmp_path: Path) -> None:
    settings = EngineSettings(format="aotinductor", compute_capability="1.0")
    with pytest.raises(ContractError, match=r"capability 1\.0: AOTInductor compiles for this"):
        aotinductor.save(lively_model(), tmp_path, settings, "omtp")
