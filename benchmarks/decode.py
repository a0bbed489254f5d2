"""Times of encoder and decode, eager and as engines; the command is benchmarks/latency.py."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from contracts.features import Categorical, Dense, FeatureGroup, FeatureSpec, FeedbackKind
from training.decoding.run import make_decode
from training.engines.torchscript import EncoderEngine, compile_engine
from training.model.gen_reranker import GenReranker
from training.settings import ModelSettings


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


def interleaved(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each call; rounds alternate between calls, so noise hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 3):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if number >= 3:  # TorchScript profiles and optimises in the first calls
                times[name].append(1e3 * (time.perf_counter() - started))
    return {name: statistics.median(values) for name, values in times.items()}


def measure(
    candidates: int, heads: int, batch: int, list_size: int, rounds: int
) -> dict[str, float]:
    """One row: medians in ms and ratios."""
    torch.manual_seed(0)
    spec = bench_spec(list_size)
    model = GenReranker(spec, ModelSettings(heads=heads)).eval()
    encoder = EncoderEngine(model).eval()
    omtp, one = make_decode(model, list_size), make_decode(model, list_size, "one_at_a_time")
    inputs = random_inputs(spec, batch, candidates)
    with torch.inference_mode():
        z, prior = encoder(*inputs)
    decode_inputs = (z, prior, torch.zeros(batch, 1), torch.zeros(batch, 1, dtype=torch.int64))
    encoder_engine, omtp_engine, one_engine = map(compile_engine, (encoder, omtp, one))

    with torch.inference_mode():
        ms = interleaved(
            {
                "enc eager": lambda: encoder(*inputs),
                "enc": lambda: encoder_engine(*inputs),
                "dec eager": lambda: omtp(*decode_inputs),
                "dec": lambda: omtp_engine(*decode_inputs),
                "dec 1": lambda: one_engine(*decode_inputs),
            },
            rounds,
        )
        passes = int(omtp_engine(*decode_inputs)[2][0, 0])
    ms["x dec"] = ms["dec 1"] / ms["dec"]
    ms["x both"] = (ms["dec 1"] + ms["enc"]) / (ms["dec"] + ms["enc"])
    return {"m": candidates, "H": heads, "batch": batch, "passes": passes, **ms}
