"""GReF beside its peers: operations counted right, times taken fairly, verdicts true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from benchmarks import arithmetic, growth, peers, rounds
from benchmarks.arithmetic import Product, ShapedLimit, operations, products_of
from benchmarks.decode import bench_spec, random_inputs
from benchmarks.growth import grow
from benchmarks.peer_networks import (
    GREF,
    PAPER_MS,
    WITHOUT_OMTP,
    check_equal,
    compile_network,
    make_network,
)
from benchmarks.peer_report import Machine, Report, Timing, aims_table
from benchmarks.rounds import Spread, interleaved, ratio
from contracts.reading import read_json
from training.settings import ModelSettings

SMALL = ModelSettings(width=16, encoder_layers=2, decoder_layers=2, attention_heads=2, heads=3)
#: What GReF's decode may do beyond what is needed.
SPARE = 1.05


def counted(network: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> int:
    """What torch counts: attention and LSTMs in forms whose products it can see."""
    counter = FlopCounterMode(display=False)
    with (
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),
        torch.backends.mkldnn.flags(enabled=False),
        counter,
    ):
        network(*inputs)
    return int(counter.get_total_flops())


@pytest.mark.parametrize("name", list(PAPER_MS))
@pytest.mark.parametrize(
    ("settings", "batch", "m", "n"),
    [
        (ModelSettings(), 1, 30, 10),
        (ModelSettings(feed_forward=4, decoder_layers=2), 3, 12, 8),
        (SMALL, 2, 17, 5),
        (ModelSettings(heads=1, encoder_layers=1, cross_attention=False), 2, 9, 1),
    ],
)
def test_operations_are_those_that_torch_counts(
    name: str, settings: ModelSettings, batch: int, m: int, n: int
) -> None:
    spec = bench_spec(n)
    network = make_network(name, spec, settings).engine.requires_grad_(False)
    found = counted(network, random_inputs(spec, batch, m))
    needed = operations(products_of(name, spec, settings, batch, m))
    if name in (GREF, WITHOUT_OMTP):
        # What is needed; the decode may do a little more, and never less.
        assert needed <= found <= SPARE * needed
    else:
        assert found == needed


def test_a_rate_is_operations_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now, busy = iter(range(10_000)), iter(range(10_000))
    monkeypatch.setattr(arithmetic.time, "perf_counter", lambda: 0.5 * next(now))
    monkeypatch.setattr(arithmetic.time, "process_time", lambda: 0.25 * next(busy))
    assert arithmetic.matrix_rate(sizes=(10, 20)) == 2 * 20**3 / 0.5
    assert arithmetic.matrix_rate(sizes=(10, 20), clock="cpu") == 2 * 20**3 / 0.25
    one, three = Product(4, 5, 6), Product(7, 8, 9, batch=2, times=3)
    assert (one.operations, three.operations) == (240, 6048)
    assert ShapedLimit().seconds([one, one, three]) == 0.5 * 5
    assert ShapedLimit(clock="cpu").seconds([one, one, three]) == 0.25 * 5


def test_rounds_take_turns_and_leave_the_warm_up_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    calls: list[str] = []

    def call(name: str, seconds: float) -> Any:
        def run() -> None:
            calls.append(name)
            # A machine that gets slower and slower: ratios of a round must not see it.
            clock[0] += seconds * len(calls)

        return run

    monkeypatch.setattr(rounds.time, "perf_counter", lambda: clock[0])
    times = interleaved({"a": call("a", 1.0), "b": call("b", 2.0), "c": call("c", 4.0)}, 5)
    timed = calls[3 * rounds.WARM_UP :]
    assert [timed[at : at + 3] for at in range(0, 9, 3)] == [list("abc"), list("bca"), list("cab")]
    assert {name: len(values) for name, values in times.items()} == {"a": 5, "b": 5, "c": 5}
    assert times["a"][0] == pytest.approx(1e3 * (3 * rounds.WARM_UP + 1))
    assert ratio(times["b"], times["a"]).median == pytest.approx(2.0, rel=0.2)
    assert ratio([2.0, 4.0, 6.0], [2.0, 2.0, 2.0]) == Spread(2.0, 1.5, 2.5)


def test_an_engine_with_other_lists_is_not_timed() -> None:
    spec = bench_spec(4)
    network = make_network(GREF, spec, SMALL)
    inputs = random_inputs(spec, 2, 9)
    check_equal(network, compile_network(network, inputs, "torchscript"), inputs, "GReF")

    def turned(*given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        order, score = network.eager(*given)
        return order.flip(1), score

    with pytest.raises(ValueError, match="GReF: 2 of 2 lists differ"):
        check_equal(network, turned, inputs, "GReF")


@pytest.mark.parametrize("name", list(PAPER_MS))
def test_more_candidates_than_a_release_serves(name: str) -> None:
    """Room for more is room alone: lists are those of a narrower table with the same rows."""
    spec = bench_spec(6)
    torch.manual_seed(0)
    wide = make_network(name, spec, SMALL, 1000).eager
    narrow = make_network(name, spec, SMALL).eager
    sizes = {key: value.shape for key, value in narrow.state_dict().items()}
    narrow.load_state_dict(
        {
            key: value[: sizes[key][0]] if value.dim() else value
            for key, value in wide.state_dict().items()
        }
    )
    with torch.inference_mode():
        inputs = random_inputs(spec, 2, 40)
        assert torch.equal(wide(*inputs)[0], narrow(*inputs)[0])
        order = wide(*random_inputs(spec, 1, 900))[0][0].tolist()
    assert len(set(order)) == 6
    assert 0 <= min(order) <= max(order) < 900


def timing(network: str, engine: str, batch: int, ms: float, to_gref: float) -> Timing:
    return Timing(
        network=network,
        engine=engine,
        batch=batch,
        candidates=30,
        list_size=10,
        ms=Spread(ms, ms, ms),
        to_gref=Spread(to_gref, to_gref, to_gref),
        operations=100,
        limit_ms=1.0,
        shaped_ms=1.5,
    )


def test_aims_say_what_is_met_and_what_is_not() -> None:
    rows = [
        timing(GREF, "eager", 1, 4.0, 1.0),
        timing(GREF, "torchscript", 1, 2.0, 1.0),
        timing(WITHOUT_OMTP, "torchscript", 1, 4.0, 2.0),
        timing("Seq2Slate", "torchscript", 1, 12.0, 6.0),
        timing("NAR4Rec", "torchscript", 1, 2.0, 0.8),
        timing(GREF, "torchscript", 64, 4.0, 1.0),
    ]
    machine = Machine(
        processor="p", device="cpu", threads=1, clock="wall", torch="2", operations_per_second=1.0
    )
    report = Report(machine=machine, width=1, layers=(1, 1), heads=1, rounds={"1": 3}, rows=rows)
    columns = [list(column.cells) for column in aims_table(report).columns]
    told = {(row[2], row[1]): (row[4], "not" not in row[5]) for row in zip(*columns)}
    assert told == {
        ("GReF without OMTP / GReF", "1"): ("2.00", False),
        ("Seq2Slate / GReF", "1"): ("6.00", True),
        ("GReF / NAR4Rec", "1"): ("1.25", False),
        ("GReF / its eager form", "1"): ("0.50", True),
        ("limit / GReF", "64"): ("0.25", False),
    }


def test_the_command(tmp_path: Path) -> None:
    out, plot = tmp_path / "new" / "peers.json", tmp_path / "other" / "peers.png"
    sizes = ["--batch", "2", "--candidates", "9", "--list-size", "4", "--width", "16"]
    options = [*sizes, "--layers", "1", "--rounds", "3", "--clock", "cpu", "--device", "cpu"]
    told = tmp_path / "peers.md"
    files = ["--out", str(out), "--plot", str(plot), "--markdown", str(told)]
    done = CliRunner().invoke(peers.app, [*options, *files])
    assert done.exit_code == 0, done.output
    report = read_json(out, Report)
    assert {row.network for row in report.rows} == {*PAPER_MS, "GReF as served"}
    assert {row.engine for row in report.rows} == {"eager", "torchscript"}
    for row in report.rows:
        assert row.ms.low > 0
        assert row.limit_ms == pytest.approx(
            1e3 * row.operations / report.machine.operations_per_second
        )
        assert (row.to_gref.median == 1) == (row.network == GREF)
    assert "5.19" in done.output
    rows = [line.split(" | ") for line in told.read_text().splitlines() if line.startswith("|")]
    assert [row[0] for row in rows[2:10]] == [f"| {name}" for name in (*PAPER_MS, "GReF as served")]
    assert {len(row) for row in rows[:10]} == {7}
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("app", "options", "told"),
    [
        (peers.app, ["--engine", "onnx"], "--engine onnx; allowed: torchscript"),
        (peers.app, ["--device", "tpu"], "--device tpu; allowed: auto, cpu, cuda"),
        (peers.app, ["--clock", "sun"], "--clock sun; allowed: wall, cpu"),
        (peers.app, ["--clock", "cpu", "--threads", "2"], "adds threads up"),
        (peers.app, ["--engine", "graph", "--device", "cpu"], "CUDA graphs need a GPU"),
        (peers.app, ["--width", "30"], "attention_heads must divide width"),
        (peers.app, ["--batch", "0"], "greater than or equal to 1"),
        (peers.app, ["--out", "README.md/peers.json"], "File exists: 'README.md'"),
        (growth.app, ["--plot", "README.md/growth.png"], "File exists: 'README.md'"),
        (growth.app, ["--out", "docs"], "docs is a folder"),
        (growth.app, ["--candidates", "5000"], "--candidates [5000]; allowed: 1 to 4096"),
        (growth.app, ["--list-size", "100"], "--list-size [100]; allowed: 1 to 64"),
    ],
)
def test_options_that_are_refused(app: Any, options: list[str], told: str) -> None:
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 2
    assert told in done.output.replace("\n", " ")


def test_growth_beyond_what_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "ModelSettings", lambda: SMALL)
    rows = list(grow(3, [5, 600], 1, 3, "cpu", 1e9, ShapedLimit()))
    assert [(row.network, row.candidates) for row in rows] == [
        (name, m) for m in (5, 600) for name in PAPER_MS
    ]
    small, large = rows[: len(PAPER_MS)], rows[len(PAPER_MS) :]
    assert all(b.operations > 50 * a.operations for a, b in zip(small, large) if a.network != GREF)
    growth.plot_growth(rows, rows, "both", tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
