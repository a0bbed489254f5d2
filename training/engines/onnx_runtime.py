"""The ONNX graphs of an encoder and a decoder, run by ONNX Runtime on the CPU.

This is what the parity gate can run of a TensorRT plan where there is no GPU. It vouches for the
graph that the plan was built from, and not for what TensorRT made of it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from contracts.reading import ContractError
from training.engines.onnx_graph import DECODER_INPUTS, ENCODER_INPUTS
from training.engines.parity import Engines


class NotImplementedHereError(Exception):
    """ONNX Runtime lacks an operation of the graph on the CPU, as it does products of bf16."""


def graph_engines(encoder: bytes, decoder: bytes, noise: nn.Module, list_size: int) -> Engines:
    """Engines of the interface: ``noise`` turns SEED into the decoder graph's NOISE.

    Raises:
        ContractError: ONNX Runtime is not installed.
        NotImplementedHereError: it cannot run the graphs.
    """
    run_encoder, run_decoder = _session(encoder), _session(decoder)

    def encode(*inputs: Tensor) -> tuple[Tensor, ...]:
        return _run(run_encoder, ENCODER_INPUTS, inputs)

    def decode(*inputs: Tensor) -> tuple[Tensor, ...]:
        return _run(run_decoder, DECODER_INPUTS, inputs)

    return Engines(encode, seeded(decode, noise), list_size)  # type: ignore[arg-type]


def seeded(decode: Callable[..., Any], noise: nn.Module) -> Callable[..., Any]:
    """A decoder that takes NOISE as one that takes SEED."""

    def call(z: Tensor, prior: Tensor, temperature: Tensor, seed: Tensor, *rules: Tensor) -> Any:
        return decode(z, prior, temperature, noise(temperature, seed, rules[1]), *rules)

    return call


def _session(graph: bytes) -> Any:
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ContractError(
            f"checking a plan's graph needs onnxruntime, which is not installed ({error}); "
            "pip install onnxruntime, or export on a machine with the GPU"
        ) from error
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except runtime.capi.onnxruntime_pybind11_state.NotImplemented as error:
        raise NotImplementedHereError(str(error)) from error


def _run(session: Any, names: tuple[str, ...], tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    fed = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
    return tuple(torch.from_numpy(output) for output in session.run(None, fed))
