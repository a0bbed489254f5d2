"""What encoder and decode cost: eager and engine, by candidates, heads and batch, in one run.

Times are medians of interleaved rounds on this machine; ratios between columns of one row are what
carries over, for both were taken in the same minute. Weights are random: time does not depend on
them, save in verified decoding, which is therefore not measured here.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Optional

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from contracts.features import Categorical, Dense, FeatureGroup, FeatureSpec, FeedbackKind
from contracts.reading import write_json
from training.decoding.run import make_decode
from training.engines.torchscript import EncoderEngine, compile_engine
from training.model.gen_reranker import GenReranker
from training.settings import ModelSettings

EPILOG = """Examples:

python benchmarks/decode.py

python benchmarks/decode.py --candidates 30 --heads 4 --batch 1 --rounds 50
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


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


@app.command(epilog=EPILOG)
def main(
    candidates: Annotated[Optional[list[int]], typer.Option(help="m; may be repeated.")] = None,
    heads: Annotated[Optional[list[int]], typer.Option(help="H; may be repeated.")] = None,
    batch: Annotated[Optional[list[int]], typer.Option(help="Rows; may be repeated.")] = None,
    list_size: Annotated[int, typer.Option(help="n.")] = 10,
    rounds: Annotated[int, typer.Option(min=3, help="Timed rounds of each row.")] = 30,
    threads: Annotated[int, typer.Option(min=1, help="torch threads.")] = 1,
    out: Annotated[Optional[Path], typer.Option(help="JSON file of the rows.")] = None,
) -> None:
    """Print encoder and decode times of the paper's 4 + 4 layers, D = 64, without a GPU."""
    torch.set_num_threads(threads)
    sizes = [
        (m, h, b)
        for b in batch or (1, 64)
        for h in heads or (1, 2, 4, 8)
        for m in candidates or (20, 30, 50, 100, 200, 500)
    ]
    rows = [
        measure(m, h, b, list_size, rounds if b == 1 else max(3, rounds // 6))
        for m, h, b in track(sizes, "measuring", transient=True)
    ]
    table = Table(title=f"n = {list_size}, 4 + 4 layers, D = 64, {threads} thread(s), ms (median)")
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()))
    Console().print(table)
    Console().print(
        "enc, dec: engines; dec 1: the engine decoding one item at a time; "
        "x: one at a time / OMTP, of the decode step and with the encoder"
    )
    if out is not None:
        write_json(out, rows)


if __name__ == "__main__":
    app()
