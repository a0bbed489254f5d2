"""Packages of AOTInductor (.pt2): compiled for a kind of machine, and loaded."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from contracts.reading import ContractError

#: Names of torch for x86 -> the level of the architecture, and the bits of its vectors.
_LEVELS = {"AVX512": ("x86-64-v4", 512), "AVX2": ("x86-64-v3", 256)}

_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default


def spelled_out(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None
) -> Tensor:
    """Attention as sums, which the compiler fuses into loops.

    torch's kernel for a CPU costs several microseconds a call and works in tiles of 32 queries;
    a pass has at most H.
    """
    scores = (query.unsqueeze(3) * key.unsqueeze(2)).sum(-1) / math.sqrt(query.size(-1))
    if attn_mask is not None:
        scores = scores + attn_mask
    return (torch.softmax(scores, -1).unsqueeze(-1) * value.unsqueeze(2)).sum(3)


def compile_package(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    dynamic: tuple[Any, ...],
    path: Path,
    device: str = "cpu",
) -> None:
    """Export a module and compile it.

    Args:
        inputs, dynamic: as of torch.export.

    Raises:
        ContractError: it cannot be compiled.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            copy.deepcopy(module).eval().to(device),
            tuple(tensor.to(device) for tensor in inputs),
            dynamic_shapes=dynamic,
        )
        if device == "cpu":
            program = program.run_decompositions({_ATTENTION: spelled_out})
        try:
            torch._inductor.aoti_compile_and_package(
                program,
                package_path=str(path),
                inductor_configs=compiler_options(this_cpu()) if device == "cpu" else None,
            )
        except Exception as error:
            raise ContractError(
                f"AOTInductor could not compile {type(module).__name__}: {error}"
            ) from error


def compiler_options(cpu: str) -> dict[str, object]:
    """Inductor's options for code that runs on every CPU of one name, and not on this one alone.

    By itself it compiles for the very model of CPU that is here (``-march=native``), whose code
    can end the process on another that torch calls by the same name.
    """
    if cpu not in _LEVELS:
        return {}  # not an x86
    march, bits = _LEVELS[cpu]
    options: dict[str, object] = {"cpp.simdlen": bits}
    if hasattr(torch._inductor.config.cpp, "march"):  # since 2.13
        options["cpp.march"] = march
    return options


def this_cpu() -> str:
    """Instruction set of this machine as torch names it: AVX2, AVX512, DEFAULT, ..."""
    return str(torch.backends.cpu.get_cpu_capability())


def load_package(path: Path) -> Callable[[list[Tensor]], list[Tensor]]:
    """A compiled module, loaded as handlers/triton_backend.py does, and for its reasons."""
    package = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1)
    return package.boxed_run
