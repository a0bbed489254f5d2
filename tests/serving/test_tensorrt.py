"""TensorRT without a GPU: graphs by ONNX Runtime against eager, and plans for named targets."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from contracts.datasets import read_dataset
from contracts.encoding import EncodedBatch
from contracts.engine_fit import ServingMachine
from contracts.features import FeatureSpec
from contracts.reading import ContractError
from contracts.releases import CHECKPOINT, verify_release
from handlers.archive import app as archive_command
from tests.model.tiny import SPEC as WIDE
from tests.model.tiny import model_settings
from tests.training.runs import WORLD, done, make_data, run
from training import export, publish
from training.checkpoint import Checkpoint, save_checkpoint
from training.data.arrays import load_slates
from training.decoding.choice import gumbel_lists
from training.decoding.omtp import OmtpDecode
from training.decoding.rules import make_rules, relaxed
from training.engines import exported_plan
from training.engines import tensorrt as tensorrt_format
from training.engines.formats import EngineSettings
from training.engines.onnx_graph import NoiseEngine, encoder_graph
from training.engines.onnx_runtime import graph_engines
from training.engines.parity import encoder_inputs, pad
from training.engines.plan_builder import PlanBuilder, plan_shapes
from training.engines.torchscript import EncoderEngine, compile_engine
from training.model.gen_reranker import GenReranker
from training.release.engines_folder import read_engines_folder
from training.release.installing import install
from training.releases import app as releases_command
from training.settings import TrainingSettings

pytestmark = pytest.mark.timeout(300)
TARGETS = ("8.0", "8.6", "8.9")


@dataclass(frozen=True)
class Exported:
    """What the command made of a checkpoint and prepared slates, and the graphs on the way."""

    plans: Path
    model: GenReranker
    requests: list[EncodedBatch]
    encoder: bytes
    decoder: bytes
    told: str


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """One export for all: that of a decode takes seconds for each position of the list.

    The model has two passes, a pairwise term, and choices that follow from the content.
    """
    folder = tmp_path_factory.mktemp("plans")
    slates = make_data(folder, 300, world={**WORLD, "list_size": 3, "candidates": 8})
    dataset, spec = read_dataset(slates)
    pairwise = (spec.item.categorical[-1].name,)
    settings = TrainingSettings(
        model=model_settings(width=8, decoder_layers=1, heads=2, pairwise=pairwise)
    )
    checkpoint = Checkpoint(
        spec=spec,
        settings=settings,
        stage="pretrain",
        weights=lively(GenReranker(spec, settings.model)).state_dict(),
        data={"dataset": dataset.source, "fingerprint": dataset.fingerprint},
        parents={},
        scores={},
    )
    save_checkpoint(folder / "best.pt", checkpoint)
    # pytest collects what torch.export notes of itself, and that is more work than the export.
    logging.getLogger("torch.__trace").propagate = False
    graphs: list[bytes] = []
    build = PlanBuilder.build

    def noting(self: PlanBuilder, graph: bytes, given: FeatureSpec) -> bytes:
        graphs.append(graph)
        return build(self, graph, given)

    options = ("--checkpoint", folder / "best.pt", "--data", slates, "--out", folder / "plans")
    target = ("--compute-capability", "8.9", "--container", "26.07-py3", "--max-batch", 16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PlanBuilder, "build", noting)
        told = done(export.app, *options, "--engine", "tensorrt", *target).output
    requests = list(export.requests_of(load_slates(slates / "test", spec, 64), spec))
    return Exported(folder / "plans", checkpoint.model().eval(), requests, *graphs, told)


def lively(model: GenReranker) -> GenReranker:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        model.encoder.position_prior *= 0.3
        model.decoder.query.weight.normal_(std=0.4)
        model.encoder.pair.scale.fill_(-0.5)  # type: ignore[union-attr]
    return model


@pytest.fixture(scope="module")
def plans(exported: Exported) -> Path:
    return exported.plans


def rules_of(prior: Tensor, n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows, m = prior.shape
    pinned = torch.randint(-8, m, (rows, n), generator=generator).clamp(min=-1)
    group = torch.randint(-1, 3, (rows, m), generator=generator)
    limit = torch.tensor([[1 + seed % 2, seed % 4]]).expand(rows, 2)
    return pinned.int(), group.int(), limit.int().contiguous()


def test_graphs_answer_as_eager_does(exported: Exported) -> None:
    """Batches of many sizes and widths, greedy and sampled, within random rules."""
    n, model = exported.model.spec.list_size, exported.model
    engines = graph_engines(exported.encoder, exported.decoder, compile_engine(NoiseEngine(n)), n)
    decode = OmtpDecode(model.decoder, n)
    width = exported.requests[0].item_cat.shape[1]
    lists = set()
    for seed, rows in enumerate((1, 24, 2, 23, 7)):
        batch = pad(first_rows(exported.requests[0], rows), width + 3 * seed)
        with torch.inference_mode():
            z, prior = EncoderEngine(model)(*encoder_inputs(batch))
        got_z, got_prior = engines.encode(*encoder_inputs(batch))
        real = prior > -1e8
        np.testing.assert_allclose(got_z[real], z[real], atol=1e-4)
        np.testing.assert_allclose(got_prior[real], prior[real], atol=1e-4)
        for temperature in (0.0, 0.8):
            heat = torch.full([rows, 1], temperature)
            seeds = torch.arange(rows).unsqueeze(1) + seed
            rules = rules_of(prior, n, seed)
            order, log_prob, passes, gave = engines.decode(got_z, got_prior, heat, seeds, *rules)
            kept = make_rules(prior, *rules)
            with torch.inference_mode():
                eager = decode(z, prior, heat, seeds, kept)
            assert torch.equal(order, eager[0])
            np.testing.assert_allclose(log_prob, eager[1], atol=5e-4)
            assert torch.equal(passes, eager[2])
            assert torch.equal(gave, relaxed(eager[0], rules[0], kept))
            lists |= set(map(tuple, order.tolist()))
    assert len(lists) > 30, "lists that are all alike would agree whatever was wrong"


def first_rows(batch: EncodedBatch, rows: int) -> EncodedBatch:
    arrays = (getattr(batch, field.name)[:rows] for field in fields(batch))
    return EncodedBatch(*arrays)


def test_the_noise_model_makes_the_noise_of_eager_sampling() -> None:
    noise = compile_engine(NoiseEngine(3))
    seeds, group = torch.tensor([[5], [-7]]), torch.zeros(2, 9, dtype=torch.int32)
    warm = torch.tensor([[0.0], [0.5]])
    assert torch.equal(noise(warm, seeds, group), gumbel_lists(seeds, 3, 9))
    assert not noise(torch.zeros(2, 1), seeds, group).any()


@pytest.mark.parametrize("target", TARGETS)
def test_plans_are_built_for_a_gpu_that_is_not_here(exported: Exported, target: str) -> None:
    settings = EngineSettings(format="tensorrt", compute_capability=target, max_batch=16)
    builder = PlanBuilder(settings)
    for graph in (exported.encoder, exported.decoder):
        assert len(builder.build(graph, exported.model.spec)) > len(graph) // 10
    assert builder.compute_capability == target
    assert "tensorrt_rtx" in builder.versions


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_precision_is_in_the_graph(exported: Exported, precision: str) -> None:
    """Matrix products in it, outputs in fp32; else the setting would be a word."""
    types = onnx.TensorProto
    expected = {"fp32": types.FLOAT, "fp16": types.FLOAT16, "bf16": types.BFLOAT16}[precision]
    serialized = exported.encoder
    if precision != "fp32":
        serialized = encoder_graph(exported.model, precision)  # type: ignore[arg-type]
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(serialized)).graph
    found = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    layers = [node for node in graph.node if node.op_type == "MatMul"]
    assert layers
    assert expected in {found.get(node.output[0]) for node in layers}
    assert (types.FLOAT in {found.get(node.output[0]) for node in layers}) == (precision == "fp32")
    assert {one.type.tensor_type.elem_type for one in graph.output} == {types.FLOAT}


@pytest.fixture(scope="module")
def release(plans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    releases = tmp_path_factory.mktemp("releases")
    serving = releases.parent / "serving.yaml"
    serving.write_text("profile: tensorrt\nmax_batch_size: 16\n")
    options = ("--engines", plans, "--out", releases, "--serving", serving)
    refused = run(publish.app, *options)
    assert refused.exit_code == 3
    assert "parity was checked of the graphs, not of the engine files" in refused.output
    assert "--accept-graph-parity" in refused.output
    assert not list(releases.glob("r*"))
    done(publish.app, *options, "--accept-graph-parity")
    return releases / "r0001"


def test_what_the_export_notes(exported: Exported) -> None:
    engines, _ = read_engines_folder(exported.plans)
    assert "parity.graph.eager.order" in exported.told
    assert [engine.part for engine in engines.engines] == ["encoder", "noise", "decoder"]
    for part in ("encoder", "decoder"):
        engine = engines.engine(part)  # type: ignore[arg-type]
        assert (engine.format, engine.precision, engine.backend) == ("tensorrt", "fp32", "tensorrt")
        assert (engine.compute_capability, engine.container) == ("8.9", "26.07-py3")
        assert engine.max_batch == 16
        assert set(engine.versions) == {"tensorrt_rtx", "torch"}
    assert all(gate.name.startswith("parity.graph.") for gate in engines.gates)
    assert all("not the plan" in gate.detail for gate in engines.gates)
    assert all(gate.passed for gate in engines.gates)


def test_a_release_of_plans(release: Path) -> None:
    manifest = verify_release(release)
    assert manifest.profile == "tensorrt"
    files = {engine.part: engine.file.rpartition("/")[2] for engine in manifest.engines}
    assert files == {"encoder": "model.plan", "noise": "model.pt", "decoder": "model.plan"}
    models = sorted(path.name for path in (release / "repository").iterdir())
    assert models == ["gref_r0001", *(f"gref_r0001_{part}" for part in sorted(files))]
    assert (release / "repository" / "gref_r0001_encoder" / "warmup").is_dir()


def test_torchserve_refuses_plans_in_words(release: Path, tmp_path: Path) -> None:
    options = ["--release", str(release), "--out", str(tmp_path / "store")]
    refused = CliRunner().invoke(archive_command, options)
    assert refused.exit_code == 2
    told = refused.output.replace("\n", " ")
    assert "the encoder is tensorrt, and what runs here is torchscript" in told
    assert f"--engine torchscript --checkpoint {release / CHECKPOINT}" in told
    assert not (tmp_path / "store").exists()


def test_a_flipped_byte_of_a_plan_is_refused(release: Path, tmp_path: Path) -> None:
    copy = tmp_path / "r0001"
    shutil.copytree(release, copy)
    plan = copy / "repository" / "gref_r0001_decoder" / "1" / "model.plan"
    content = bytearray(plan.read_bytes())
    content[len(content) // 2] ^= 1
    plan.write_bytes(content)
    with pytest.raises(ContractError, match=r"model\.plan was altered \(manifest .*, found"):
        verify_release(copy)
    machine = ServingMachine(compute_capability="8.9")
    with pytest.raises(ContractError, match=r"model\.plan was altered"):
        install(copy, tmp_path / "served", machine=lambda: machine)


def test_a_release_for_another_gpu_or_version_is_not_installed(
    release: Path, tmp_path: Path
) -> None:
    runner, served = CliRunner(), tmp_path / "served"
    command = ["install", "r0001", "--repository", str(served), "--releases", str(release.parent)]
    for options, told in (
        ([], "compute capability 8.9, this machine has none"),
        (["--compute-capability", "9.0"], "compute capability 8.9, this machine has 9.0"),
        (
            ["--compute-capability", "8.9", "--tensorrt", "10.13.2"],
            "this machine has tensorrt 10.13.2",
        ),
    ):
        if not options and torch.cuda.is_available():
            continue
        result = runner.invoke(releases_command, [*command, *options])
        assert result.exit_code == 2
        assert told in result.output
    assert not served.exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--precision", "fp64"), "field precision: Invalid enum value 'fp64'"),
        (("--engine", "onnx"), "field format: Invalid enum value 'onnx'; allowed: torchscript"),
        (("--precision", "fp16"), "allowed for torchscript: fp32"),
        (("--engine", "tensorrt", "--max-batch", 0), "max_batch is 0; allowed: 1 to 1024"),
        (("--compute-capability", "8.9"), "torchscript is built for none"),
    ],
)
def test_options_that_cannot_be(options: tuple[object, ...], told: str, tmp_path: Path) -> None:
    paths = ("--checkpoint", tmp_path, "--data", tmp_path, "--out", tmp_path / "out")
    result = run(export.app, *paths, *options)
    assert result.exit_code == 2
    assert told in result.output


def test_verified_decoding_has_no_plan(exported: Exported, tmp_path: Path) -> None:
    settings = EngineSettings(format="tensorrt", compute_capability="8.9")
    with pytest.raises(ContractError, match="allowed for tensorrt: --mode omtp or one_at_a_time"):
        tensorrt_format.save(exported.model, tmp_path, settings, "verified")


def test_a_target_that_cannot_be_built_for_is_named() -> None:
    with pytest.raises(ContractError, match=r"9\.0.*allowed: SM"):
        PlanBuilder(EngineSettings(format="tensorrt", compute_capability="9.0"))


def test_without_gpu_and_target_the_error_says_what_to_give() -> None:
    if torch.cuda.is_available():
        pytest.skip("needs GPU: the other way round")
    assert not exported_plan.is_available()
    with pytest.raises(ContractError, match="--compute-capability"):
        PlanBuilder(EngineSettings(format="tensorrt"))


def test_plans_do_not_run_where_they_were_not_built_for(plans: Path) -> None:
    engines, spec = read_engines_folder(plans)
    with pytest.raises(ContractError, match=r"built by tensorrt_rtx for compute capability 8\.9"):
        tensorrt_format.load(plans, engines.engines, spec.list_size)


def test_a_graph_that_is_none_is_refused_with_tensorrts_words() -> None:
    builder = PlanBuilder(EngineSettings(format="tensorrt", compute_capability="8.9"))
    with pytest.raises(ContractError, match="cannot read the graph"):
        builder.build(b"not a graph", WIDE)


def test_shapes_of_a_plan_cover_every_bucket() -> None:
    assert plan_shapes((-1, -1, 4), WIDE, 16) == [(1, 8, 4), (8, 32, 4), (16, 64, 4)]
    assert plan_shapes((-1, 3, -1), WIDE, 2) == [(1, 3, 8), (2, 3, 32), (2, 3, 64)]
    assert plan_shapes((-1, 1), WIDE, 64) == [(1, 1), (8, 1), (64, 1)]
