"""Profiles: configurations of every backend, and releases that are published with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
import torch
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from contracts.engine_fit import EngineMismatchError, ServingMachine, check_engines_fit
from contracts.reading import ContractError
from contracts.releases import ReleaseManifest, verify_release
from deploy.served_repository import add_release, local_triton, models_of
from deploy.triton_install import StackError
from tests.serving.toy_engines import SPEC
from training.release.installing import install, uninstall
from training.release.profiles import PROFILES, parts_of
from training.release.publishing import publish
from training.release.serving_machine import this_machine
from training.release.serving_settings import ServingSettings
from training.release.stamping import BASE, ReleaseFacts, read_base, stamp, to_text

HASHES = {"encoder": "e" * 64, "noise": "a" * 64, "decoder": "d" * 64}
FACTS = ReleaseFacts("r0042", SPEC, 12, 4, HASHES, on_gpu=True)
#: Names that torch-tensorrt gives to the tensors of a plan.
OWN = {
    "encoder": {"ITEM_CAT": "item_cat", "COUNT": "count", "Z": "output0", "PRIOR": "output1"},
    "decoder": {"NOISE": "noise_BNM", "ORDER": "output0"},
}


def parsed(
    profile: str, part: str, facts: ReleaseFacts = FACTS, **settings: object
) -> model_config_pb2.ModelConfig:
    """A stamped configuration after a round trip through its text, as Triton reads it."""
    serving = ServingSettings(profile=profile, **settings)  # type: ignore[arg-type]
    text = to_text(stamp(part, facts, serving), part, facts.name, profile)  # type: ignore[arg-type]
    return text_format.Parse(text, model_config_pb2.ModelConfig())


@pytest.mark.parametrize("profile", PROFILES)
def test_bases_explain_themselves_and_parse_strictly(profile: str, tmp_path: Path) -> None:
    for part in parts_of(profile):
        text = (BASE / profile / part / "config.pbtxt").read_text()
        assert text.startswith("#")
        assert read_base(part, profile=profile).max_batch_size == 64
        target = tmp_path / profile / part / "config.pbtxt"
        target.parent.mkdir(parents=True)
        target.write_text(text + "\nmax_batchsize: 8\n")
        with pytest.raises(ContractError, match=rf"{profile}/{part}/config.pbtxt.*max_batchsize"):
            read_base(part, tmp_path, profile)


@pytest.mark.parametrize("own", [{}, OWN])
@pytest.mark.parametrize("profile", PROFILES)
def test_the_ensemble_wires_every_tensor(
    profile: str, own: Mapping[str, Mapping[str, str]]
) -> None:
    """Shapes and types agree from the request to the list, whatever the steps call them."""
    facts = ReleaseFacts("r0042", SPEC, 12, 4, HASHES, own, True)
    ensemble = parsed(profile, "ensemble", facts)
    known = {tensor.name: tensor for tensor in ensemble.input}
    steps = ensemble.ensemble_scheduling.step
    assert [step.model_name for step in steps] == [
        f"gref_r0042_{part}" for part in parts_of(profile)[:-1]
    ]
    for step, part in zip(steps, parts_of(profile)):
        config = parsed(profile, part, facts)
        assert (step.model_name, step.model_version) == (config.name, 1)
        assert set(step.input_map) == {tensor.name for tensor in config.input}
        assert set(step.output_map) == {tensor.name for tensor in config.output}
        for tensor in config.input:
            source = known[step.input_map[tensor.name]]
            assert (source.data_type, source.dims) == (tensor.data_type, tensor.dims)
        known |= {step.output_map[tensor.name]: tensor for tensor in config.output}
        for warmup in config.model_warmup:
            assert set(warmup.inputs) == {tensor.name for tensor in config.input}
    for tensor in ensemble.output:
        assert (known[tensor.name].data_type, known[tensor.name].dims) == (
            tensor.data_type,
            tensor.dims,
        )


@pytest.mark.parametrize("profile", ["gpu", "tensorrt", "aoti"])
def test_engines_on_a_gpu(profile: str) -> None:
    for part, backend in PROFILES[profile].backends.items():
        config = parsed(profile, part, instances=2, max_queue_size=9)
        group = config.instance_group[0]
        assert (group.kind, group.count) == (group.KIND_GPU, 2)
        assert config.backend == backend
        assert config.dynamic_batching.default_queue_policy.max_queue_size == 9
        # Two models of one server that both set it abort the server.
        assert "INTER_OP_THREAD_COUNT" not in config.parameters
        if backend == "pytorch":
            numbered = [f"INPUT__{i}" for i in range(len(config.input))]
            assert [tensor.name for tensor in config.input] == numbered


def test_an_aoti_package_of_a_cpu_runs_on_the_cpu() -> None:
    facts = ReleaseFacts("r0042", SPEC, 12, 4, HASHES, on_gpu=False)
    group = parsed("aoti", "encoder", facts).instance_group[0]
    assert group.kind == group.KIND_CPU
    assert parsed("aoti", "encoder", facts).platform == "torch_aoti"


@pytest.fixture(scope="module")
def gpu_release(toy_engines: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The TorchScript engines of profile cpu, published for the pytorch backend."""
    return publish(toy_engines, tmp_path_factory.mktemp("gpu"), ServingSettings(profile="gpu"))


def test_torchscript_engines_are_published_for_a_gpu(gpu_release: Path) -> None:
    manifest = verify_release(gpu_release)
    assert manifest.profile == "gpu"
    assert {engine.backend for engine in manifest.engines} == {"pytorch"}
    assert not list(gpu_release.rglob("model.py")), "the pytorch backend runs no Python"
    for engine in manifest.engines:
        folder = (gpu_release / engine.file).parents[1]
        text = (folder / "config.pbtxt").read_text()
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
        assert config.platform == "pytorch_libtorch"
        assert (folder / "1" / "model.pt").is_file()


def test_the_local_triton_refuses_what_it_cannot_run(gpu_release: Path, tmp_path: Path) -> None:
    with pytest.raises(StackError, match="needs Triton's pytorch backend; this Triton has python"):
        add_release(gpu_release, tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_installing_compares_first(gpu_release: Path, tmp_path: Path) -> None:
    none = ServingMachine(compute_capability="none")
    with pytest.raises(EngineMismatchError, match="needs a GPU; this machine has none"):
        install(gpu_release, tmp_path / "served", machine=lambda: none)
    assert not (tmp_path / "served").exists()
    some = ServingMachine(compute_capability="8.0")
    copied = install(gpu_release, tmp_path / "served", machine=lambda: some)
    assert copied == list(models_of("r0001", gpu_release / "repository"))[:-1][::-1] + [
        "gref_r0001"
    ]
    assert uninstall("r0001", tmp_path / "served") == [
        "gref_r0001",
        "gref_r0001_decoder",
        "gref_r0001_encoder",
    ]


@pytest.mark.parametrize("profile", ["tensorrt", "aoti"])
def test_engines_of_another_format_than_the_profile(
    toy_engines: Path, tmp_path: Path, profile: str
) -> None:
    with pytest.raises(ContractError, match=f"engines are torchscript, profile {profile} serves"):
        publish(toy_engines, tmp_path, ServingSettings(profile=profile))  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_what_is_said_goes_before_what_is_found() -> None:
    environment = {"NVIDIA_TRITON_SERVER_VERSION": "26.07", "TRT_VERSION": "10.13.2.6"}
    found = this_machine(environment, compute_capability="8.9", cpu="AVX2", torch="2.12.0")
    assert found == ServingMachine(
        compute_capability="8.9",
        cpu="AVX2",
        container="26.07",
        tensorrt="10.13.2.6",
        torch="2.12.0",
    )
    said = this_machine(environment, compute_capability="9.0", container="26.08-py3", cpu=None)
    assert (said.compute_capability, said.container) == ("9.0", "26.08-py3")
    assert said.cpu is not None
    assert said.torch == torch.__version__
    assert msgspec.structs.replace(said, backends=ALL).backends == ALL


ALL = ("python", "pytorch", "tensorrt")


def test_a_machine_is_asked_by_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the program, with the output that the real one has."""
    program = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for output, expected in (("8.9\n8.9\n", "8.9"), ("", "none")):
        program.write_text(f"#!/bin/sh\nprintf '{output}'\n")
        program.chmod(0o755)
        assert this_machine({}, cpu="AVX2").compute_capability == expected
    program.write_text("#!/bin/sh\nprintf '8.9\\n9.0\\n'\n")
    with pytest.raises(ContractError, match=r"8\.9, 9\.0 are here.*--compute-capability"):
        this_machine({}, cpu="AVX2")


def test_the_local_triton_knows_its_cpu_and_torch(gpu_release: Path) -> None:
    """Both ways to it, ``up --release`` and ``load``, compare compiled engines with these."""

    def compiled(cpu: str, version: str) -> ReleaseManifest:
        manifest = verify_release(gpu_release)
        found = {"format": "aotinductor", "backend": "python"}
        found |= {"versions": {"cpu": cpu, "torch": version}}
        engines = tuple(msgspec.structs.replace(one, **found) for one in manifest.engines)
        return msgspec.structs.replace(manifest, profile="cpu", engines=engines)

    here = compiled(torch.backends.cpu.get_cpu_capability(), torch.__version__)
    check_engines_fit(here, local_triton(here))
    for other in (compiled("another", torch.__version__), compiled("", "1.0.0")):
        with pytest.raises(EngineMismatchError, match=r"was built for .*this machine has"):
            check_engines_fit(other, local_triton(other))
