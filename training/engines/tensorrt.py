"""TensorRT engines: a plan each for encoder and decoder, and the noise of sampling as TorchScript.

A plan has neither the shifts nor the exclusive or of the counter-based generator, so NOISE is an
input of the decoder's, and a third model makes it from SEED.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from contracts.reading import ContractError
from contracts.releases import Engine
from training.decoding.run import Mode
from training.engines import exported_plan, onnx_graph
from training.engines.formats import EngineSettings, Saved
from training.engines.onnx_graph import ExportedDecoder, ExportedEncoder, NoiseEngine
from training.engines.onnx_runtime import NotImplementedHereError, graph_engines, seeded
from training.engines.parity import Engines
from training.engines.plan_builder import PlanBuilder, this_gpu
from training.engines.plan_runtime import Plan, plan_engines, tensor_names
from training.engines.torchscript import compile_engine, load_engine
from training.model.gen_reranker import GenReranker

FILES = {"encoder": "encoder.plan", "noise": "noise.pt", "decoder": "decoder.plan"}


@dataclass
class _Plan:
    """A plan as it was built, and the graph where it came from one."""

    content: bytes
    graph: bytes = b""
    versions: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, str] = field(default_factory=dict)


def check(settings: EngineSettings, mode: Mode) -> None:
    """Of the seam (``formats.py``)."""
    if mode == "verified":
        raise ContractError(
            "verified decoding settles as many items as the data allows, which no plan can; "
            "allowed for tensorrt: --mode omtp or one_at_a_time"
        )
    PlanBuilder(settings)


def save(model: GenReranker, folder: Path, settings: EngineSettings, mode: Mode) -> Saved:
    """Of the seam (``formats.py``)."""
    check(settings, mode)
    block = 1 if mode == "one_at_a_time" else None
    builder = PlanBuilder(settings)
    encoder = _encoder_plan(model, builder)
    decoder = _decoder_plan(model, builder, block)
    noise = compile_engine(NoiseEngine(model.spec.list_size))
    (folder / FILES["encoder"]).write_bytes(encoder.content)
    (folder / FILES["decoder"]).write_bytes(decoder.content)
    (folder / FILES["noise"]).write_bytes(_packed(noise))
    engines = (
        _entry("encoder", encoder, builder),
        Engine(
            part="noise",
            format="torchscript",
            precision="fp32",
            backend="pytorch",
            file=FILES["noise"],
            versions={"torch": str(torch.__version__)},
            container=settings.container,
        ),
        _entry("decoder", decoder, builder),
    )
    n = model.spec.list_size
    if builder.library == "tensorrt":
        return Saved(engines, load(folder, engines, n))
    try:
        graphs = graph_engines(encoder.graph, decoder.graph, noise, n)
        return Saved(engines, graphs, "the ONNX graph by ONNX Runtime, not the plan")
    except NotImplementedHereError:
        precision = settings.precision
        decode = seeded(ExportedDecoder(model, precision, block).eval(), noise)
        modules = Engines(ExportedEncoder(model, precision).eval(), decode, n)
        return Saved(engines, modules, f"the exported module in {precision} by torch, not the plan")


def load(folder: Path, engines: Sequence[Engine], list_size: int) -> Engines:
    """Of the seam: on the GPU that the plans were built for, and nowhere else."""
    found = {engine.part: engine for engine in engines}
    here = this_gpu()
    for part in ("encoder", "decoder"):
        if found[part].compute_capability != here or "tensorrt" not in found[part].versions:
            library = next((name for name in found[part].versions if "tensorrt" in name), "?")
            raise ContractError(
                f"{folder / found[part].file}: built by {library} for compute capability "
                f"{found[part].compute_capability}; this machine has {here or 'no GPU'}"
            )
    trt = PlanBuilder(EngineSettings(format="tensorrt")).trt
    encoder, decoder = (
        Plan(trt, (folder / found[part].file).read_bytes(), found[part].tensors)
        for part in ("encoder", "decoder")
    )
    return plan_engines(encoder, decoder, load_engine(folder / found["noise"].file), list_size)


def _encoder_plan(model: GenReranker, builder: PlanBuilder) -> _Plan:
    precision = builder.settings.precision
    names = onnx_graph.ENCODER_INPUTS, onnx_graph.ENCODER_OUTPUTS
    module = ExportedEncoder(model, precision)
    if plan := _exported(module, onnx_graph.encoder_arguments(model.spec), names, model, builder):
        return plan
    graph = onnx_graph.encoder_graph(model, precision)
    return _Plan(builder.build(graph, model.spec), graph)


def _decoder_plan(model: GenReranker, builder: PlanBuilder, block: int | None) -> _Plan:
    precision = builder.settings.precision
    names = onnx_graph.DECODER_INPUTS, onnx_graph.DECODER_OUTPUTS
    module = ExportedDecoder(model, precision, block)
    if plan := _exported(module, onnx_graph.decoder_arguments(model), names, model, builder):
        return plan
    graph = onnx_graph.decoder_graph(model, precision, block)
    return _Plan(builder.build(graph, model.spec), graph)


def _exported(  # type: ignore[no-untyped-def]
    module: nn.Module, arguments, names, model: GenReranker, builder: PlanBuilder
) -> _Plan | None:
    """The plan by torch-tensorrt, where it is here and builds for this GPU; else None."""
    if builder.library != "tensorrt" or not exported_plan.is_available():
        return None
    try:
        content = exported_plan.exported_plan(
            module, arguments, model.spec, builder.settings.max_batch
        )
    except Exception as error:  # whatever a converter lacks; the other way is as good
        warnings.warn(
            f"torch-tensorrt does not convert {type(module).__name__} ({error}); "
            "building from its ONNX graph",
            stacklevel=2,
        )
        return None
    own = tensor_names(builder.trt, content, *names)
    return _Plan(content, versions={"torch_tensorrt": exported_plan.version()}, tensors=own)


def _entry(part: str, plan: _Plan, builder: PlanBuilder) -> Engine:
    return Engine(
        part=part,  # type: ignore[arg-type]
        format="tensorrt",
        precision=builder.settings.precision,
        backend="tensorrt",
        file=FILES[part],
        versions={**builder.versions, **plan.versions},
        compute_capability=builder.compute_capability,
        container=builder.settings.container,
        max_batch=builder.settings.max_batch,
        tensors=plan.tensors,
    )


def _packed(engine: torch.jit.ScriptModule) -> bytes:
    packed = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(engine, packed)
    return packed.getvalue()
