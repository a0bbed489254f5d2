"""AOTInductor engines: packages (.pt2) of machine code, compiled from torch.export's program.

The successor of TorchScript, for Triton's ``platform: "torch_aoti"`` and, on a CPU, for the python
backend of profile ``cpu``. Compiled for the GPU of this machine or, without one, for its kind of
CPU: a package runs on what it was compiled for and nowhere else.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from contracts.engine_fit import public_version
from contracts.features import MAX_CANDIDATES
from contracts.reading import ContractError
from contracts.releases import Engine
from training.decoding.choice import counters, gumbel_at
from training.decoding.run import Mode
from training.engines.formats import EngineSettings, Precision, Saved
from training.engines.onnx_graph import (
    ExportedDecoder,
    ExportedEncoder,
    decoder_arguments,
    encoder_arguments,
)
from training.engines.packages import compile_package, load_package, this_cpu
from training.engines.parity import Engines
from training.engines.plan_builder import this_gpu
from training.engines.torchscript import EncoderEngine
from training.model.gen_reranker import GenReranker

FILES = {"encoder": "encoder.pt2", "decoder": "decoder.pt2"}

#: Far more candidates than a request can have. Compiled code does not look at the shapes that it is
#: called with, so it must be right for any, and a bound of 512 would let the compiler leave out the
#: clamps below. (AOTI_RUNTIME_CHECK_INPUTS=1 is no help: it refuses batches of one.)
WIDEST = 1 << 20


class AnyWidthEncoder(EncoderEngine):
    """The encoder with the last position for all candidates beyond the positions that there are."""

    def forward(
        self,
        item_cat: Tensor,
        item_dense: Tensor,
        user_cat: Tensor,
        user_dense: Tensor,
        count: Tensor,
    ) -> tuple[Tensor, Tensor]:
        place = _places(item_cat.size(1), item_cat.device).unsqueeze(0)
        return self.encode(item_cat, item_dense, user_cat, user_dense, count, place)


class SeededDecoder(nn.Module):
    """The decoder of the engine interface: SEED in place of the noise.

    A batch without rules that samples nothing takes a branch of its own, compiled without either.
    """

    counters: Tensor

    def __init__(self, model: GenReranker, precision: Precision, block: int | None) -> None:
        super().__init__()
        self.decoder = ExportedDecoder(model, precision, block)
        # A table: the compiler takes products of indices for addresses, and finds them too large.
        table = counters(model.spec.list_size, MAX_CANDIDATES, torch.device("cpu"))
        self.register_buffer("counters", table)

    def forward(
        self, z: Tensor, prior: Tensor, temperature: Tensor, seed: Tensor, *rules: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        pinned, _, limit = rules
        busy = (temperature > 0).any() | (pinned >= 0).any() | (limit[:, 1] > 0).any()
        given = (z, prior, temperature, seed, *rules)
        out: tuple[Tensor, Tensor, Tensor, Tensor] = torch.cond(
            busy, self.drawn_within_rules, self.plain, given
        )
        return out

    def drawn_within_rules(
        self, z: Tensor, prior: Tensor, temperature: Tensor, seed: Tensor, *rules: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        noise = gumbel_at(seed, self.counters[:, _places(prior.size(1), prior.device)])
        out: tuple[Tensor, Tensor, Tensor, Tensor] = self.decoder(
            z, prior, temperature, noise, *rules
        )
        return out

    def plain(
        self, z: Tensor, prior: Tensor, temperature: Tensor, seed: Tensor, *rules: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return (*self.decoder.greedy(z, prior, temperature), torch.zeros_like(rules[2]))


def check(settings: EngineSettings, mode: Mode) -> None:
    """Of the seam (``formats.py``)."""
    here, cpu = this_gpu(), this_cpu()
    if mode == "verified":
        raise ContractError(
            "verified decoding settles as many items as the data allows, which no package can; "
            "allowed for aotinductor: --mode omtp or one_at_a_time"
        )
    if settings.compute_capability not in (None, here):
        raise ContractError(
            f"compute capability {settings.compute_capability}: AOTInductor compiles for this "
            f"machine, which has {here or 'no GPU'}; run it where that GPU is"
        )
    if settings.cpu not in (None, cpu):
        raise ContractError(
            f"a CPU with {settings.cpu}: AOTInductor compiles for this machine, which has "
            f"{cpu}; run it on such a CPU"
        )
    if here is None and shutil.which("g++") is None:
        raise ContractError("AOTInductor needs a C++ compiler for the CPU; install g++")


def save(model: GenReranker, folder: Path, settings: EngineSettings, mode: Mode) -> Saved:
    """Of the seam (``formats.py``)."""
    check(settings, mode)
    here, cpu = this_gpu(), this_cpu()
    device = "cuda" if here else "cpu"
    block = 1 if mode == "one_at_a_time" else None
    seeded = SeededDecoder(model, settings.precision, block)
    inputs, (*most, pinned, group, limit) = decoder_arguments(model, True, WIDEST)
    compile_package(
        ExportedEncoder(model, settings.precision, AnyWidthEncoder(model)),
        *encoder_arguments(model.spec, WIDEST),
        folder / FILES["encoder"],
        device,
    )
    rules = (pinned, group, limit)  # of *rules, which torch.export sees as one
    compile_package(seeded, inputs, (*most, rules), folder / FILES["decoder"], device)
    versions = {"torch": str(torch.__version__)}
    if here is None:
        versions["cpu"] = cpu
    engines = tuple(
        Engine(
            part=part,  # type: ignore[arg-type]
            format="aotinductor",
            precision=settings.precision,
            backend="pytorch" if here else "python",
            file=file,
            versions=versions,
            compute_capability=here,
            container=settings.container,
            max_batch=settings.max_batch,
        )
        for part, file in FILES.items()
    )
    return Saved(engines, load(folder, engines, model.spec.list_size))


def load(folder: Path, engines: Sequence[Engine], list_size: int) -> Engines:
    """Of the seam: on the GPU, or the kind of CPU, that the packages were compiled for."""
    here = this_gpu()
    found: dict[str, Callable[..., Any]] = {}
    for engine in engines:
        path = folder / engine.file
        if engine.compute_capability != here:
            raise ContractError(
                f"{path}: compiled for compute capability {engine.compute_capability or 'none'}; "
                f"this machine has {here or 'no GPU'}"
            )
        # Before its code is loaded: an instruction that is not there ends the process.
        for what, built, has in (
            ("a CPU with ", engine.versions.get("cpu"), this_cpu()),
            ("torch ", engine.versions.get("torch"), str(torch.__version__)),
        ):
            if built is not None and public_version(built) != public_version(has):
                raise ContractError(
                    f"{path}: compiled for {what}{built}; this machine has {has}; export again here"
                )
        try:
            found[engine.part] = load_package(path)
        except Exception as error:
            raise ContractError(f"{path}: not an AOTInductor package: {error}") from error
    device = "cuda" if here else "cpu"
    encode, decode = (_moved(found[part], device) for part in ("encoder", "decoder"))
    return Engines(encode, decode, list_size)


def _places(candidates: int, device: torch.device) -> Tensor:
    return torch.arange(candidates, device=device).clamp(max=MAX_CANDIDATES - 1)


def _moved(run: Callable[..., Any], device: str) -> Callable[..., Any]:
    def call(*inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(out.cpu() for out in run([tensor.to(device) for tensor in inputs]))

    return call
