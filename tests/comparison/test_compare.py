"""The command, small: two peers and GReF in a tiny world; killed on the way, and gone on with."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from training import compare
from training.comparison.cases import CASES, chosen_cases
from training.comparison.jobs import Plan
from training.comparison.running import Runner
from training.comparison.store import Row, Store
from training.comparison.systems import PeerSystem, systems

ROOT = Path(__file__).resolve().parents[2]
METHODS = ("given", "oracle", "dnn", "prm", "gref")


def arguments(folder: Path, *more: str, methods: tuple[str, ...] = METHODS) -> list[str]:
    chosen = [word for name in methods for word in ("--method", name)]
    places = ["--work", str(folder / "work"), "--results", str(folder / "results")]
    return ["--case", "tiny", *chosen, "--seed", "1", "--trials", "2", *places, *more]


def run(folder: Path, *more: str, methods: tuple[str, ...] = METHODS) -> Result:
    words = arguments(folder, *more, methods=methods)
    return CliRunner().invoke(compare.app, words, env={"COLUMNS": "1000"})


def kill_after_first_results(folder: Path) -> None:
    """Start the command as a process of its own, and kill it once there are two results."""
    file = folder / "results" / "tiny.jsonl"
    command = [sys.executable, str(ROOT / "training" / "compare.py"), *arguments(folder)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT, env=os.environ
    )
    try:
        while not (file.exists() and file.read_bytes().count(b"\n") >= 2):
            if process.poll() is not None:
                raise AssertionError(process.stderr.read().decode() if process.stderr else "")
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.stderr:
            process.stderr.close()


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A comparison that was killed and gone on with; what stood when it was killed."""
    folder = tmp_path_factory.mktemp("compared")
    kill_after_first_results(folder)
    before = (folder / "results" / "tiny.jsonl").read_bytes()
    result = run(folder)
    assert result.exit_code == 0, result.output
    return folder, before


def test_a_killed_run_goes_on_where_it_was(compared: tuple[Path, bytes]) -> None:
    folder, before = compared
    lines = (folder / "results" / "tiny.jsonl").read_bytes()
    assert lines.startswith(before[: before.rfind(b"\n") + 1])
    rows = Store(folder / "results").rows()
    assert len(rows) == lines.count(b"\n")  # nothing twice
    roles = {name: [r.role for r in rows.values() if r.method == name] for name in METHODS}
    assert roles["given"] == roles["oracle"] == ["final"]
    for name in ("dnn", "prm", "gref"):
        assert sorted(roles[name]) == ["final", "final", "trial", "trial"]
    assert list((folder / "work" / "jobs").glob("*/")) == []


def test_rows_say_what_was_found(compared: tuple[Path, bytes]) -> None:
    rows = Store(compared[0] / "results").rows().values()
    final = {r.method: r for r in rows if r.role == "final" and r.control == "none"}
    clicks = {name: row.metrics["true click"].value for name, row in final.items()}
    assert clicks["oracle"] == max(clicks.values())
    assert final["given"].metrics["true click"].over_given == (0, 0, 0)
    for name in ("dnn", "prm", "gref"):
        assert final[name].parameters > 1000
        assert final[name].cpu_seconds > 0
        assert final[name].latency_ms is not None
        tried = [r for r in rows if r.method == name and r.role == "trial"]
        best = max(tried, key=lambda row: row.held_out or 0.0)
        assert final[name].settings == best.settings
        assert not any(row.metrics for row in tried)  # a trial never sees the test lists


def test_a_finished_run_trains_nothing_and_report_gives_the_same_files(
    compared: tuple[Path, bytes],
) -> None:
    folder, _ = compared
    lines = (folder / "results" / "tiny.jsonl").read_bytes()
    table = (folder / "comparison.md").read_bytes()
    assert run(folder).exit_code == 0
    assert (folder / "results" / "tiny.jsonl").read_bytes() == lines
    (folder / "comparison.md").unlink()
    places = ["--results", str(folder / "results")]
    assert CliRunner().invoke(compare.app, ["--report", *places]).exit_code == 0
    assert (folder / "comparison.md").read_bytes() == table
    assert b"| **gref** " in table or b"| **gref** (1)" in table


def test_any_row_comes_again_by_one_command(compared: tuple[Path, bytes], tmp_path: Path) -> None:
    rows = Store(compared[0] / "results").rows()
    (old,) = [r for r in rows.values() if (r.method, r.role, r.control) == ("dnn", "final", "none")]
    assert run(tmp_path, "--no-controls", methods=("dnn",)).exit_code == 0
    new = Store(tmp_path / "results").rows()[old.key]
    assert new.metrics == old.metrics


def test_two_processes_share_the_work(tmp_path: Path) -> None:
    methods = ("given", "random", "oracle", "exposed", "dnn")
    words = arguments(tmp_path, "--no-controls", methods=methods)
    command = [sys.executable, str(ROOT / "training" / "compare.py"), *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    both = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    lines = (tmp_path / "results" / "tiny.jsonl").read_bytes()
    # Four bounds; two trials of the peer and its final run: each done by one of the two.
    assert lines.count(b"\n") == len(Store(tmp_path / "results").rows()) == 7


def test_time_that_is_up_is_no_success(tmp_path: Path) -> None:
    result = run(tmp_path, "--minutes", "0.00001", methods=("given", "random"))
    assert result.exit_code == 3
    assert "the time was up" in result.output


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--case", "moon"], "--case moon; allowed: kuairand-6"),
        (["--method", "magic"], "--method magic; allowed"),
    ],
)
def test_unknown_names_are_refused(tmp_path: Path, more: list[str], said: str) -> None:
    result = run(tmp_path, *more)
    assert result.exit_code == 2
    assert said in result.output


def test_kuairand_needs_its_files(tmp_path: Path) -> None:
    words = ["--case", "kuairand-6", "--method", "given", "--seed", "1"]
    places = ["--work", str(tmp_path / "w"), "--results", str(tmp_path / "r")]
    result = CliRunner().invoke(compare.app, [*words, *places], env={"COLUMNS": "1000"})
    assert not (tmp_path / "w").exists(), "refused before anything is made"
    assert result.exit_code == 2
    assert "--case kuairand-6 needs --kuairand" in result.output


def test_cases_without_their_files_are_left_out_where_nobody_asked_for_them() -> None:
    chosen, without = chosen_cases(None, ("tiny", "kuairand-6"), None)
    assert [case.name for case in chosen] == ["tiny"]
    assert without == ["kuairand-6"]
    with pytest.raises(ValueError, match="no such folder"):
        chosen_cases(None, ("tiny",), Path("/no/such/folder"))


def test_report_makes_all_or_nothing(tmp_path: Path) -> None:
    result = run(tmp_path, "--report")
    assert result.exit_code == 2
    assert "leave it with --results and --out" in result.output


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--minutes", "5"], "leave it with --results and --out"),
        ([], "no results are stored there"),
    ],
)
def test_a_report_of_nothing_writes_over_nothing(
    tmp_path: Path, more: list[str], said: str
) -> None:
    """A mistyped folder must not replace the tables by empty ones."""
    page = tmp_path / "comparison.md"
    page.write_text("figures")
    places = ["--results", str(tmp_path / "resluts"), "--out", str(tmp_path)]
    result = CliRunner().invoke(compare.app, ["--report", *places, *more], env={"COLUMNS": "1000"})
    assert result.exit_code == 2
    assert said in result.output
    assert page.read_text() == "figures"
    assert sorted(tmp_path.iterdir()) == [page]


def runner_of(folder: Path, *methods: str) -> Runner:
    systems_of = [systems()[name] for name in methods]
    plan = Plan([CASES["tiny"]], systems_of, seeds=[1], trials=1, control_seeds=[])
    return Runner(plan, Store(folder / "results"), folder / "work", say=lambda _: None)


def test_a_full_disk_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hours of training are not for results that nobody can write down."""
    tried: list[Row] = []

    def full(_: Store, row: Row, *arrays: object) -> None:
        tried.append(row)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Store, "add", full)
    with pytest.raises(OSError, match="No space left"):
        runner_of(tmp_path, "given", "random").run()
    assert len(tried) == 1, "the second was not begun"


def test_results_that_would_be_refused_are_not_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = runner_of(tmp_path, "given")
    assert runner.run()
    (kept,) = (tmp_path / "results" / "lists").glob("tiny-*.npz")
    with np.load(kept) as arrays:
        others = {name: arrays[name] for name in arrays.files}
    others["label"] = ~others["label"]
    np.savez_compressed(kept, **others)
    again = runner_of(tmp_path, "dnn")
    monkeypatch.setattr(PeerSystem, "fit", lambda *_: pytest.fail("it was trained"))
    assert not again.run()
    assert "other test lists" in "".join(again.failed.values())
