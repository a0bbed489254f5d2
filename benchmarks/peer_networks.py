"""The networks that benchmarks/peers.py times: GReF and its peers, all from five tensors to a list.

Weights are random: times do not depend on them.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from contracts.features import MAX_CANDIDATES, FeatureSpec
from training.baselines.dnn import Dnn
from training.baselines.nar4rec import Nar4Rec
from training.baselines.prm import Prm
from training.baselines.seq2slate import Seq2Slate, Seq2SlateTransformer
from training.engines.parity import no_rules
from training.engines.torchscript import compile_engine, eager_engines, engine_modules
from training.model.gen_reranker import GenReranker
from training.settings import ModelSettings, override

Engine = Literal["eager", "torchscript", "aotinductor", "graph"]
Run = Callable[..., Any]

GREF, WITHOUT_OMTP = "GReF", "GReF without OMTP"
SEQ2SLATE, TRANSFORMER_POINTER = "Seq2Slate", "Seq2Slate, Transformer"
#: GReF with the inputs of sampling and of the business's rules, unused: the two served engines.
SERVED = "GReF as served"
#: Milliseconds of the paper's Table 2, on a Tesla T4; batch and averaging are not stated there.
PAPER_MS = {
    GREF: 12.97,
    WITHOUT_OMTP: 24.29,
    SEQ2SLATE: 67.34,
    TRANSFORMER_POINTER: 67.34,
    "NAR4Rec": 12.67,
    "PRM": 10.96,
    "DNN": 8.03,
}


@dataclass(frozen=True)
class Network:
    """A network as it trains, and as engines are made of it, with the same weights."""

    eager: nn.Module
    engine: nn.Module


class GrefLists(nn.Module):
    """Encoder and greedy decode in one module, without sampling and rules, as peers are."""

    def __init__(self, encoder: nn.Module, decode: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decode = decode

    def forward(
        self,
        item_cat: Tensor,
        item_dense: Tensor,
        user_cat: Tensor,
        user_dense: Tensor,
        count: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """As the networks of training/baselines."""
        z, prior = self.encoder(item_cat, item_dense, user_cat, user_dense, count)
        cold = torch.zeros([z.size(0), 1], device=z.device)
        order, log_prob, _ = self.decode.lists(z, prior, cold, None, None)  # type: ignore[operator]
        return order, log_prob


def make_network(
    name: str, spec: FeatureSpec, settings: ModelSettings, positions: int = MAX_CANDIDATES
) -> Network:
    """A network by its name in ``PAPER_MS``, in eval mode.

    GReF without OMTP is the same network with one head: it computes no query that it does not use.

    Args:
        positions: candidates that tables of positions have room for.
    """
    if name in (GREF, WITHOUT_OMTP):
        heads = settings.heads if name == GREF else 1
        model = GenReranker(spec, override(settings, {"heads": heads})).eval()
        if positions > MAX_CANDIDATES:
            _make_room(model, settings, positions)
        eager, engine = (
            GrefLists(_with_room(encode, positions), decode.decode)  # type: ignore[arg-type]
            for encode, decode in (eager_engines(model), engine_modules(model))
        )
        return Network(eager.eval(), engine.eval())
    peers: dict[str, Callable[[], nn.Module]] = {
        SEQ2SLATE: lambda: Seq2Slate(spec, settings),
        TRANSFORMER_POINTER: lambda: Seq2SlateTransformer(spec, settings, positions),
        "NAR4Rec": lambda: Nar4Rec(spec, settings, positions),
        "PRM": lambda: Prm(spec, settings, positions),
        "DNN": lambda: Dnn(spec, settings),
    }
    if name not in peers:
        raise ValueError(f"no network {name!r}; allowed: {', '.join(PAPER_MS)}")
    network = peers[name]().eval()
    return Network(network, network)


def _make_room(model: GenReranker, settings: ModelSettings, positions: int) -> None:
    """More positions than a release has: for growth with m beyond what is served."""
    prior = -torch.log1p(torch.arange(positions, dtype=torch.float32))
    model.encoder.position = nn.Embedding(positions, settings.width)
    model.encoder.position_prior = nn.Parameter(prior)


def _with_room(encoder: nn.Module, positions: int) -> nn.Module:
    encoder.most = positions  # type: ignore[assignment]
    return encoder


def served_engines(
    spec: FeatureSpec,
    settings: ModelSettings,
    engine: Engine,
    batch: int,
    candidates: int,
    device: str,
) -> Run:
    """Encoder and decoder of a release, one after the other; greedy and without rules."""
    model = GenReranker(spec, settings).eval()
    made = eager_engines(model) if engine == "eager" else engine_modules(model)
    encode, decode = (module.to(device) for module in made)
    if engine == "torchscript":
        encode, decode = compile_engine(encode), compile_engine(decode)
    rest = (
        torch.zeros(batch, 1, device=device),
        torch.zeros(batch, 1, dtype=torch.int64, device=device),
        *(part.to(device) for part in no_rules(range(batch), spec.list_size, candidates)),
    )

    def run(*inputs: Tensor) -> Any:
        return decode(*encode(*inputs), *rest)

    return run


def compile_network(network: Network, inputs: tuple[Tensor, ...], engine: Engine) -> Run:
    """A network in an engine format; AOTInductor's and CUDA graphs are for the shape of ``inputs``.

    Raises:
        ValueError: the format cannot be made here; the message says what is missing.
    """
    if engine == "eager":
        return network.eager
    if engine == "torchscript":
        return compile_engine(network.engine)
    if engine == "aotinductor":
        return _package(network.engine, inputs)
    if engine == "graph":
        return _graph(network.engine, inputs)
    raise ValueError(f"no engine format {engine!r}; allowed: {', '.join(get_args(Engine))}")


def _package(network: nn.Module, inputs: tuple[Tensor, ...]) -> Run:
    if not inputs[0].is_cuda and shutil.which("g++") is None:
        raise ValueError("AOTInductor needs a C++ compiler for the CPU; install g++")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        path = str(Path(folder) / "network.pt2")
        program = torch.export.export(network, inputs)
        torch._inductor.aoti_compile_and_package(program, package_path=path)
        run: Run = torch._inductor.aoti_load_package(path)
    return run


def _graph(network: nn.Module, inputs: tuple[Tensor, ...]) -> Run:
    """A CUDA graph of the network over these very tensors."""
    if not inputs[0].is_cuda:
        raise ValueError("CUDA graphs need a GPU; allowed here: torchscript, aotinductor")
    with torch.inference_mode():
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                network(*inputs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            answer = network(*inputs)

    def replay(*_: Tensor) -> Any:
        graph.replay()
        return answer

    return replay


def check_equal(network: Network, run: Run, inputs: tuple[Tensor, ...], name: str) -> None:
    """Refuse to time a compiled network that gives other lists than the eager one.

    Raises:
        ValueError: more than one list in a hundred differs (near ties may).
    """
    with torch.inference_mode():
        expected, found = network.eager(*inputs)[0], run(*inputs)[0]
    differing = int((expected != found).any(dim=1).sum())
    if differing > len(expected) // 100:
        raise ValueError(
            f"{name}: {differing} of {len(expected)} lists differ from the eager network's; "
            "its time would mean nothing"
        )
