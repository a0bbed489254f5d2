"""TorchScript engines: encoder and OMTP decode with the interface of docs/architecture.md.

torch marks TorchScript as deprecated, and it is what Triton's python and pytorch backends load;
``aotinductor.py`` is its successor behind the same seam (``formats.py``).
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from contracts.features import MAX_CANDIDATES
from contracts.reading import ContractError
from contracts.releases import Engine
from training.decoding.rules import make_rules, relaxed
from training.decoding.run import Mode, make_decode
from training.decoding.unrolled import UnrolledDecode
from training.engines.formats import EngineSettings, Saved
from training.engines.parity import Engines
from training.model.gen_reranker import GenReranker

ENCODER_FILE, DECODER_FILE = "encoder.pt", "decoder.pt"


class EncoderEngine(nn.Module):
    """The encoder with positions taken from the candidates' order.

    No input can make it read beyond a table: on a GPU that would end the whole server. A category
    that its table does not have counts as missing (row 0), and more candidates than there are
    positions are an error of the call.
    """

    def __init__(self, model: GenReranker) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.most = MAX_CANDIDATES
        for name, group in (("item_rows", model.spec.item), ("user_rows", model.spec.user)):
            rows = [feature.rows for feature in group.categorical] or [1]
            self.register_buffer(name, torch.tensor(rows, dtype=torch.int32), persistent=False)

    def forward(
        self,
        item_cat: Tensor,
        item_dense: Tensor,
        user_cat: Tensor,
        user_dense: Tensor,
        count: Tensor,
    ) -> tuple[Tensor, Tensor]:
        if item_cat.size(1) > self.most:
            raise ValueError("more candidates than positions")
        place = torch.arange(item_cat.size(1), device=item_cat.device).unsqueeze(0)
        return self.encode(item_cat, item_dense, user_cat, user_dense, count, place)

    def encode(
        self,
        item_cat: Tensor,
        item_dense: Tensor,
        user_cat: Tensor,
        user_dense: Tensor,
        count: Tensor,
        place: Tensor,
    ) -> tuple[Tensor, Tensor]:
        z, prior = self.encoder(
            _within(item_cat, self.item_rows),  # type: ignore[arg-type]
            item_dense,
            _within(user_cat, self.user_rows),  # type: ignore[arg-type]
            user_dense,
            count,
            place,
        )
        return z, prior


def _within(cat: Tensor, rows: Tensor) -> Tensor:
    return cat.masked_fill((cat < 0) | (cat >= rows), 0)


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


def engine_modules(model: GenReranker, mode: Mode = "omtp") -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder as engines are made of them, from the parameters of the eager ones."""
    if mode == "verified":
        return eager_engines(model, mode)
    block = 1 if mode == "one_at_a_time" else None
    decode = UnrolledDecode(model.decoder, model.spec.list_size, block)
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
    for module, name in zip(engine_modules(model, mode), (ENCODER_FILE, DECODER_FILE)):
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


def check(settings: EngineSettings, mode: Mode) -> None:
    """Of the seam: TorchScript is compiled anywhere."""


def save(model: GenReranker, folder: Path, settings: EngineSettings, mode: Mode) -> Saved:
    """Of the seam (``formats.py``): one file serves on CPU and on GPU, as the profile says."""
    save_engines(model, folder, mode)
    engines = tuple(
        Engine(
            part=part,  # type: ignore[arg-type]
            format="torchscript",
            precision="fp32",
            backend="python",
            file=file,
            versions={"torch": str(torch.__version__)},
            container=settings.container,
        )
        for part, file in (("encoder", ENCODER_FILE), ("decoder", DECODER_FILE))
    )
    return Saved(engines, load(folder, engines, model.spec.list_size))


def load(folder: Path, engines: Sequence[Engine], list_size: int) -> Engines:
    """Of the seam: the engines as Triton's python backend runs them."""
    found = {engine.part: folder / engine.file for engine in engines}
    try:
        return Engines(load_engine(found["encoder"]), load_engine(found["decoder"]), list_size)
    except RuntimeError as error:
        raise ContractError(f"{folder}: not TorchScript engines: {error}") from error
