"""The whole path, as ``make demo`` walks it, with few lists: a real Triton at its end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from deltalake import DeltaTable

from contracts.experiments import read_experiments
from contracts.reading import read_json
from contracts.routing import Routing
from deploy.rolling.history import read_stages
from streaming.traffic.tally import TrafficSummary
from training.evaluation.against_baseline import Comparison
from training.release.store import ReleaseStore

ROOT = Path(__file__).resolve().parents[2]


def demo(out: Path, *arguments: str) -> str:
    """Run the demo; what it printed."""
    command = [sys.executable, "deploy/demo.py", "--out", str(out), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1700)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.timeout(1800)
def test_demo_closes_the_loop_on_a_simulated_world(tmp_path: Path) -> None:
    """Train, serve, traffic, table, refresh, rollouts, and poison refused: a smaller make demo."""
    out = tmp_path / "demo"
    printed = demo(out, "--lists", "8000", "--requests", "60", "--live-requests", "3000")

    store = ReleaseStore(out / "releases")
    assert store.names() == ("r0001", "r0002", "r0003")
    first, second = store.verify("r0001"), store.verify("r0002")
    assert all(gate.passed for gate in (*first.gates, *second.gates))
    assert first.data.dataset == "simulator"
    assert second.parents.release == "r0001"
    assert (store.path("r0002") / "report").is_dir()
    assert "60 requests, 0 fallbacks" in printed
    assert "served lists" in printed

    traffic = {
        file.stem: read_json(file, TrafficSummary) for file in (out / "traffic").glob("*.json")
    }
    looks = {name for name in traffic if name.startswith("at-50-look")}
    assert looks
    others = {"tastes-move", "they-have-moved", "at-10", "the-mistake", "bots"}
    assert set(traffic) == looks | others
    assert not any(one.fallbacks for one in traffic.values())
    assert traffic["they-have-moved"].releases == {"r0001": 3000}
    check_rollouts(out, traffic)

    refusals = list((out / "releases" / "refusals").glob("*/report.md"))
    assert len(refusals) == 1, "the bots' refresh is refused, and only that"
    assert "refresh refused" in printed
    every = sum(one.requests for one in traffic.values())
    check_table(out / "feedback", every, last=traffic["bots"].requests)
    assert (out / "live.png").stat().st_size > 10_000
    assert not (out / "stack" / "state.json").exists(), "the demo left a stack behind"


def check_rollouts(out: Path, traffic: dict[str, TrafficSummary]) -> None:
    """r0002 was promoted on evidence, r0003 served few and was rolled back without anybody."""
    assert ReleaseStore(out / "releases").champion() == "r0002"
    routing = read_json(out / "routing.json", Routing)
    assert (routing.champion, routing.experiments) == ("r0002", ())
    experiments = read_experiments(out / "experiments")
    assert {one.state for one in experiments.values()} == {"stopped"}
    weights = [
        stage.weights["refreshed"] for stage in read_stages(out / "experiments", "refreshed")
    ]
    assert weights[:2] == [0.1, 0.5]

    at_10 = traffic["at-10"].releases
    assert set(at_10) == {"r0001", "r0002"}
    assert 0.05 < at_10["r0002"] / traffic["at-10"].requests < 0.15
    harmed = traffic["the-mistake"].releases
    assert set(harmed) == {"r0002", "r0003"}
    assert harmed["r0003"] < 0.17 * traffic["the-mistake"].requests, (
        "of a share of 0.2, for a while"
    )
    page = (out / "experiment.html").read_text()
    assert "Ship refreshed" in page
    assert "the truth of the simulated world" in page


def check_table(table: Path, requests: int, last: int) -> None:
    """Valid by the command; every request at most once, and all but the open windows' there."""
    command = [sys.executable, "streaming/table.py", "validate", str(table)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    ids = DeltaTable(table).to_pyarrow_table(columns=["request_id"])["request_id"].to_pylist()
    assert len(set(ids)) == len(ids)
    # The last traffic's windows may still be open; of what came before, little was late. How many
    # looks an experiment needs, and so how much came before, depends on how good the release is.
    assert 0.97 * (requests - last) < len(ids) <= requests


@pytest.mark.timeout(1800)
def test_demo_on_kuairand_prints_all_four_orders(tmp_path: Path, kuairand: Path) -> None:
    """Small settings: what is tested is that the run is whole, not what it reaches."""
    printed = demo(tmp_path / "demo", "--data", str(kuairand), "--requests", "40", "--small")

    results = read_json(tmp_path / "demo" / "evaluation.json", Comparison)
    methods = {result.method for result in results.results}
    assert {"given order", "pre-training", "post-training", "both"} <= methods
    given = results.get("ndcg", "given order").value.estimate
    exposed = results.get("ndcg", "exposed order").value.estimate
    assert given > exposed + 0.02, "the initial ranker should beat the order of exposure"
    duplicates = json.loads((tmp_path / "demo/runs/both/pretrain/history.json").read_text())
    assert all(row["held_out/duplicates"] == 0 for row in duplicates["epochs"])
    assert "40 requests, 0 fallbacks" in printed
