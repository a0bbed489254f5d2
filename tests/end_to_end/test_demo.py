"""The whole path, as ``make demo`` walks it, with few lists: a real Triton at its end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.reading import read_json
from contracts.releases import verify_release
from training.evaluation.comparison import Comparison

ROOT = Path(__file__).resolve().parents[2]


def demo(out: Path, *arguments: str) -> str:
    """Run the demo; what it printed."""
    command = [sys.executable, "deploy/demo.py", "--out", str(out), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.timeout(900)
def test_demo_trains_publishes_and_serves_a_simulated_world(tmp_path: Path) -> None:
    printed = demo(tmp_path / "demo", "--lists", "6000", "--requests", "60")

    manifest = verify_release(tmp_path / "demo" / "releases" / "r0001")
    assert all(gate.passed for gate in manifest.gates)
    assert manifest.data.dataset == "simulator"
    assert manifest.parents.reference_sha256 is not None
    assert "60 requests, 0 fallbacks" in printed
    assert "served lists" in printed
    state = tmp_path / "demo" / "stack" / "state.json"
    assert not state.exists(), "the demo left a stack behind"


@pytest.mark.timeout(900)
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
