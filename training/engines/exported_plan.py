"""TensorRT plans by torch-tensorrt's ExportedProgram front end, for the GPU of this machine.

Where it is not installed, or cannot convert a module, plans come from the ONNX graph
(``plan_builder.py``).
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
from typing import Any

import torch
from torch import Tensor, nn

from contracts.features import FeatureSpec
from training.engines.plan_builder import plan_shapes


def is_available() -> bool:
    """Whether torch-tensorrt and a GPU are here."""
    return torch.cuda.is_available() and importlib.util.find_spec("torch_tensorrt") is not None


def exported_plan(
    module: nn.Module,
    arguments: tuple[tuple[Tensor, ...], tuple[Any, ...]],
    spec: FeatureSpec,
    max_batch: int,
) -> bytes:
    """The plan of a module; its types are the module's own (strongly typed)."""
    torch_tensorrt = importlib.import_module("torch_tensorrt")
    inputs, dynamic = arguments
    program = torch.export.export(
        copy.deepcopy(module).eval().cuda(),
        tuple(tensor.cuda() for tensor in inputs),
        dynamic_shapes=dynamic,
    )
    given = []
    for tensor, axes in zip(inputs, dynamic, strict=True):
        shape = tuple(-1 if axis in axes else size for axis, size in enumerate(tensor.shape))
        least, tuned, most = plan_shapes(shape, spec, max_batch)
        given.append(
            torch_tensorrt.Input(
                min_shape=least, opt_shape=tuned, max_shape=most, dtype=tensor.dtype
            )
        )
    plan: bytes = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
        program, arg_inputs=given, use_explicit_typing=True, truncate_double=True
    )
    return plan


def version() -> str:
    return str(importlib.import_module("torch_tensorrt").__version__)
