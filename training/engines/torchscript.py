"""TorchScript engines: encoder and OMTP decode with the interface of docs/architecture.md.

torch marks TorchScript as deprecated, and it is what Triton's python and pytorch backends load;
what differs by format is this file alone, so that torch.export can follow.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from training.decoding.rules import make_rules, relaxed
from training.decoding.run import Mode, make_decode
from training.model.gen_reranker import GenReranker

ENCODER_FILE, DECODER_FILE = "encoder.pt", "decoder.pt"


class EncoderEngine(nn.Module):
    """The encoder with positions taken from the candidates' order."""

    def __init__(self, model: GenReranker) -> None:
        super().__init__()
        self.encoder = model.encoder

    def forward(
        self,
        item_cat: Tensor,
        item_dense: Tensor,
        user_cat: Tensor,
        user_dense: Tensor,
        count: Tensor,
    ) -> tuple[Tensor, Tensor]:
        z, prior = self.encoder(item_cat, item_dense, user_cat, user_dense, count)
        return z, prior


class DecoderEngine(nn.Module):
    """A decode with the rules of the business as tensors; requests without any pay nothing."""

    def __init__(self, decode: nn.Module) -> None:
        super().__init__()
        self.decode = decode

    def forward(
        self,
        z: Tensor,
        prior: Tensor,
        temperature: Tensor,
        seed: Tensor,
        pinned: Tensor,
        group: Tensor,
        limit: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if bool((pinned >= 0).any()) or bool((limit[:, 1] > 0).any()):
            rules = make_rules(prior, pinned, group, limit)
            order, log_prob, passes = self.decode(z, prior, temperature, seed, rules)
            return order, log_prob, passes, relaxed(order, pinned, rules)
        order, log_prob, passes = self.decode(z, prior, temperature, seed)
        gave = torch.zeros([z.size(0), 2], dtype=torch.int32, device=z.device)
        return order, log_prob, passes, gave


def eager_engines(model: GenReranker, mode: Mode = "omtp") -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder as modules: the reference that engines are compared with."""
    decode = make_decode(model, model.spec.list_size, mode)
    return EncoderEngine(model).eval(), DecoderEngine(decode).eval()


def compile_engine(module: nn.Module) -> torch.jit.ScriptModule:
    """Script and freeze a module in eval mode."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        frozen: torch.jit.ScriptModule = torch.jit.freeze(torch.jit.script(module.eval()))
    return frozen


def save_engines(model: GenReranker, folder: Path, mode: Mode = "omtp") -> None:
    """Write both engines of a model into a folder.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    for module, name in zip(eager_engines(model, mode), (ENCODER_FILE, DECODER_FILE)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            packed = io.BytesIO()  # torch ends the process where a file cannot be written
            torch.jit.save(compile_engine(module), packed)
        (folder / name).write_bytes(packed.getbuffer())


def load_engine(path: Path) -> torch.jit.ScriptModule:
    """Load an engine as serving does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        engine: torch.jit.ScriptModule = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    return engine.eval()
