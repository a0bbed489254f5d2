"""TensorRT plans, run on the GPU of this machine: what the parity gate runs where there is one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from contracts.reading import ContractError
from training.engines.onnx_graph import (
    DECODER_INPUTS,
    DECODER_OUTPUTS,
    ENCODER_INPUTS,
    ENCODER_OUTPUTS,
)
from training.engines.onnx_runtime import seeded
from training.engines.parity import Engines


class Plan:
    """A plan and an execution context of it.

    Args:
        trt: the module ``tensorrt``, in the version that built the plan.
        names: name of the engine interface -> name in the plan, of those that differ.
    """

    def __init__(self, trt: Any, plan: bytes, names: dict[str, str]) -> None:
        self._names = names
        self._engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(plan)
        if self._engine is None:
            raise ContractError(f"TensorRT {trt.__version__} does not load the plan on this GPU")
        self._context = self._engine.create_execution_context()
        self._types = {
            trt.DataType.FLOAT: torch.float32,
            trt.DataType.INT32: torch.int32,
            trt.DataType.INT64: torch.int64,
        }

    def run(self, inputs: dict[str, Tensor], outputs: tuple[str, ...]) -> tuple[Tensor, ...]:
        """Outputs [on the CPU] of one call, by the names of the engine interface."""
        context, kept = self._context, []
        for name, tensor in inputs.items():
            name = self._names.get(name, name)
            value = tensor.to("cuda", self._types[self._engine.get_tensor_dtype(name)])
            kept.append(value.contiguous())
            context.set_input_shape(name, tuple(value.shape))
            context.set_tensor_address(name, kept[-1].data_ptr())
        results = []
        for name in outputs:
            name = self._names.get(name, name)
            type_ = self._types[self._engine.get_tensor_dtype(name)]
            shape = tuple(context.get_tensor_shape(name))
            results.append(torch.empty(shape, dtype=type_, device="cuda"))
            context.set_tensor_address(name, results[-1].data_ptr())
        stream = torch.cuda.current_stream()
        if not context.execute_async_v3(stream.cuda_stream):
            raise ContractError("TensorRT could not run the plan; its log above says why")
        stream.synchronize()
        return tuple(result.cpu() for result in results)


def plan_engines(encoder: Plan, decoder: Plan, noise: nn.Module, list_size: int) -> Engines:
    """Engines of the interface from the plans of both parts."""

    def encode(*inputs: Tensor) -> tuple[Tensor, ...]:
        return encoder.run(dict(zip(ENCODER_INPUTS, inputs, strict=True)), ENCODER_OUTPUTS)

    def decode(*inputs: Tensor) -> tuple[Tensor, ...]:
        return decoder.run(dict(zip(DECODER_INPUTS, inputs, strict=True)), DECODER_OUTPUTS)

    return Engines(encode, seeded(decode, noise), list_size)  # type: ignore[arg-type]


def tensor_names(
    trt: Any, plan: bytes, inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> dict[str, str]:
    """The plan's own names of the interface's tensors, by their order, of those that differ.

    torch-tensorrt names a plan's tensors itself.
    """
    engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(plan)
    found = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    is_input = [engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in found]
    ours = [name for name, given in zip(found, is_input) if given]
    ours += [name for name, given in zip(found, is_input) if not given]
    if len(ours) != len(inputs + outputs):
        raise ContractError(f"the plan has the tensors {ours}; wanted: {inputs + outputs}")
    return {name: own for name, own in zip(inputs + outputs, ours) if own != name}
