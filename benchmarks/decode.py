"""Times of encoder and decode in each format of engine; the command is benchmarks/latency.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from benchmarks.arithmetic import operations, products_of
from benchmarks.rounds import Clock, interleaved, ratio
from contracts.features import Categorical, Dense, FeatureGroup, FeatureSpec, FeedbackKind
from training.decoding.omtp import OmtpDecode
from training.decoding.unrolled import UnrolledDecode
from training.engines.aotinductor import FILES, WIDEST
from training.engines.aotinductor import save as save_packages
from training.engines.formats import EngineSettings
from training.engines.onnx_graph import decoder_arguments
from training.engines.packages import compile_package, load_package
from training.engines.parity import no_rules
from training.engines.torchscript import (
    EncoderEngine,
    compile_engine,
    eager_engines,
    engine_modules,
)
from training.model.gen_reranker import GenReranker

FORMATS = ("eager", "torchscript", "aotinductor")
PARTS = ("encode", "decode", "plain", "one")

Call = Callable[..., Any]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One format at one size: medians in ms, and medians of the ratios of each round.

    Attributes:
        decode: as served; ``plain``: without the inputs of sampling and rules; ``one``: that, one
            item a pass.
        of_eager: encoder and decode, over eager's.
        without_omtp: encoder and ``one``, over encoder and ``plain``.
        unused_rules: ``decode`` over ``plain``.
        of_limit: share of the time of encoder and decode that matrix products at the machine's
            best rate would take.
    """

    format: str
    m: int
    H: int
    batch: int
    encode: float
    decode: float
    plain: float
    one: float
    of_eager: float
    without_omtp: float
    unused_rules: float
    of_limit: float


def bench_spec(list_size: int) -> FeatureSpec:
    """Features of a usual size: three categories and two numbers an item, two and one a user."""
    return FeatureSpec(
        user=FeatureGroup(
            categorical=(
                Categorical(name="user", buckets=100_000, width=16),
                Categorical(name="segment", buckets=100, width=8),
            ),
            dense=(Dense(name="activity"),),
        ),
        item=FeatureGroup(
            categorical=(
                Categorical(name="item", buckets=100_000, width=16),
                Categorical(name="author", buckets=10_000, width=16),
                Categorical(name="category", buckets=100, width=8),
            ),
            dense=(Dense(name="score"), Dense(name="duration", transform="log1p")),
        ),
        list_size=list_size,
        feedback=(FeedbackKind(kind="click", type="binary"),),
        utility="click",
    )


def random_inputs(spec: FeatureSpec, batch: int, candidates: int) -> tuple[Tensor, ...]:
    """Encoder inputs with all candidates real."""
    generator = torch.Generator().manual_seed(0)

    def rows(*shape: int) -> Tensor:
        return torch.randint(0, 90, shape, generator=generator, dtype=torch.int32)

    return (
        rows(batch, candidates, spec.item.categorical_columns),
        torch.randn(batch, candidates, spec.item.dense_columns, generator=generator),
        rows(batch, spec.user.categorical_columns),
        torch.randn(batch, spec.user.dense_columns, generator=generator),
        torch.full((batch, 1), candidates, dtype=torch.int32),
    )


@dataclass(frozen=True)
class Ways:
    """A network in one format.

    Attributes:
        encode: five tensors to Z and PRIOR.
        decode: as served, with the inputs of sampling and of the business's rules.
        plain: the same without them; ``one`` is that, one item a pass.
    """

    encode: Call
    decode: Call
    plain: Call
    one: Call


class Plain(nn.Module):
    """A greedy decode without rules: what the inputs of both are measured against."""

    def __init__(self, decode: OmtpDecode) -> None:
        super().__init__()
        self.decode = decode

    def forward(
        self, z: Tensor, prior: Tensor, temperature: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        return self.decode.lists(z, prior, temperature, None, None)


def modules_of(model: GenReranker, eager: bool) -> tuple[nn.Module, ...]:
    """Encoder, decode as served, plain decode and one at a time: as trained, or as for engines."""
    n = model.spec.list_size
    encoder, served = (eager_engines if eager else engine_modules)(model)
    kind = OmtpDecode if eager else UnrolledDecode
    plain = [Plain(kind(model.decoder, n, block)).eval() for block in (None, 1)]
    return encoder, served, *plain


def build(model: GenReranker, name: str, folder: Path) -> Ways:
    """A network in a format: eager, torchscript, or aotinductor (a minute or more of g++)."""
    if name == "aotinductor":
        return Ways(*(_spread(load_package(path)) for path in _packages(model, folder)))
    modules = modules_of(model, eager=name == "eager")
    return Ways(*(modules if name == "eager" else map(compile_engine, modules)))


def _packages(model: GenReranker, folder: Path) -> list[Path]:
    """The released packages, and those of both plain decodes."""
    save_packages(model, folder, EngineSettings(format="aotinductor"), "omtp")
    inputs, dynamic = decoder_arguments(model, True, WIDEST)
    made = [folder / FILES["encoder"], folder / FILES["decoder"]]
    for block, module in zip(("plain", "one"), modules_of(model, eager=False)[2:]):
        made.append(folder / f"{block}.pt2")
        compile_package(module, inputs[:3], dynamic[:3], made[-1])
    return made


def _spread(run: Callable[[list[Tensor]], list[Tensor]]) -> Call:
    return lambda *inputs: run(list(inputs))


def measure(
    model: GenReranker,
    ways: Mapping[str, Ways],
    candidates: int,
    batch: int,
    rounds: int,
    clock: Clock,
    rate: float,
) -> list[Row]:
    """A row for each format, all taken by turns.

    Args:
        ways: by format; eager must be among them.
        rate: operations a second of the machine's matrix product.
    """
    spec, settings = model.spec, model.settings
    inputs = random_inputs(spec, batch, candidates)
    with torch.inference_mode():
        z, prior = EncoderEngine(model).eval()(*inputs)
    cold = torch.zeros(batch, 1)
    given = (z, prior, cold, cold.long(), *no_rules([0] * batch, spec.list_size, candidates))
    calls = {}
    for name, way in ways.items():
        for part in PARTS:
            arguments = inputs if part == "encode" else given if part == "decode" else given[:3]
            calls[f"{name} {part}"] = partial(getattr(way, part), *arguments)
    times = interleaved(calls, rounds, clock=clock)
    least = operations(products_of("GReF", spec, settings, batch, candidates)) / rate * 1e3
    eager = _sum(times, "eager", "encode", "decode")
    rows = []
    for name in ways:
        both = _sum(times, name, "encode", "decode")
        one, plain = (_sum(times, name, "encode", part) for part in ("one", "plain"))
        rows.append(
            Row(
                format=name,
                m=candidates,
                H=settings.heads,
                batch=batch,
                **{part: median(times[f"{name} {part}"]) for part in PARTS},
                of_eager=ratio(both, eager).median,
                without_omtp=ratio(one, plain).median,
                unused_rules=ratio(times[f"{name} decode"], times[f"{name} plain"]).median,
                of_limit=least / median(both),
            )
        )
    return rows


def _sum(times: Mapping[str, list[float]], name: str, *parts: str) -> list[float]:
    """Of parts, round by round."""
    return [sum(one) for one in zip(*(times[f"{name} {part}"] for part in parts))]
