"""What commands leave for the textfile collector."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from contracts.champion import CHAMPION_FILE, ChampionChange, ChampionFile
from contracts.reading import ContractError, write_json
from contracts.releases import Gate
from deploy.monitoring.experiment_metrics import (
    experiment_registry,
    write_experiment_metrics,
    write_stopped,
)
from tests.report_page import statuses
from training import refresh
from training.refreshing.findings import Summary
from training.refreshing.run_metrics import RunMetrics

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

GATES = (
    Gate(name="data.slates", passed=True, value=5000, limit=2000, detail=""),
    Gate(name="train.chosen_fall", passed=False, value=0.4, limit=0.2, detail=""),
)
SUMMARY = Summary(
    outcome="refused",
    release=None,
    champion="r0004",
    versions=(3, 9),
    slates=5000,
    gates=GATES,
    report=None,
)


def samples(path: Path) -> Samples:
    return {
        (one.name, frozenset(one.labels.items())): one.value
        for family in text_string_to_metric_families(path.read_text())
        for one in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


def releases(folder: Path, champion: str = "r0004") -> Path:
    folder.mkdir()
    change = ChampionChange(release=champion, time="2026-03-01T03:00:00Z")
    write_json(folder / CHAMPION_FILE, ChampionFile(changes=(change,)))
    return folder


def test_a_refused_refresh(tmp_path: Path) -> None:
    path = tmp_path / "refresh.prom"
    with RunMetrics(path, releases(tmp_path / "releases")) as run:
        run.summary = SUMMARY
    found = samples(path)
    outcomes = {
        dict(labels)["outcome"]: number
        for (name, labels), number in found.items()
        if name == "gref_refresh_outcome"
    }
    assert outcomes == {"published": 0, "unchanged": 0, "refused": 1, "failed": 0}
    assert value(found, "gref_refresh_champion_info", release="r0004") == 1
    assert value(found, "gref_refresh_slates") == 5000
    assert value(found, "gref_refresh_gate_passed", gate="data.slates") == 1
    assert value(found, "gref_refresh_gate_passed", gate="train.chosen_fall") == 0
    assert value(found, "gref_refresh_gate_limit", gate="train.chosen_fall") == 0.2
    assert value(found, "gref_refresh_finished_timestamp_seconds") > 1.7e9  # type: ignore[operator]


def test_whatever_ends_a_refresh_is_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "refresh.prom"
    with (
        pytest.raises(RuntimeError),
        RunMetrics(path, tmp_path / "no-releases"),
    ):
        raise RuntimeError
    assert value(samples(path), "gref_refresh_outcome", outcome="failed") == 1


def test_a_dry_run_and_no_file_leave_nothing(tmp_path: Path) -> None:
    path = tmp_path / "refresh.prom"
    with RunMetrics(path, tmp_path) as run:
        run.summary = msgspec.structs.replace(SUMMARY, outcome="dry-run")
    with RunMetrics(None, tmp_path) as run:
        run.summary = SUMMARY
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_is_wrong_with_the_path_before_it_begins(tmp_path: Path) -> None:
    given = ["--feedback", str(tmp_path / "table"), "--releases", str(tmp_path)]
    given += ["--repository", str(tmp_path), "--metrics-file"]
    for wrong, told in ((tmp_path / "a.txt", "*.prom alone"), (tmp_path / "b/c.prom", "no such")):
        result = CliRunner().invoke(refresh.app, [*given, str(wrong)])
        assert result.exit_code == 2
        assert told in " ".join(result.output.split())


def test_the_command_leaves_its_failure(tmp_path: Path) -> None:
    path = tmp_path / "refresh.prom"
    given = ["--feedback", str(tmp_path / "table"), "--releases", str(tmp_path / "none")]
    given += ["--repository", str(tmp_path / "served"), "--metrics-file", str(path)]
    assert CliRunner().invoke(refresh.app, given).exit_code == 2
    assert value(samples(path), "gref_refresh_outcome", outcome="failed") == 1
    assert [one.name for one in tmp_path.iterdir()] == ["refresh.prom"]


def get(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"gref_experiment_{name}", labels)


def test_an_experiment() -> None:
    status = statuses.winning()
    made, e = experiment_registry(status), status.name
    assert get(made, "running", experiment=e) == 1
    assert get(made, "checked_timestamp_seconds", experiment=e) == status.now / 1000
    arm = {"experiment": e, "arm": "refreshed"}
    assert get(made, "arm_weight", **arm, release="r0008") == 0.5
    effect = status.lifts[0].relative
    assert effect is not None
    lift = {**arm, "metric": "clicks", "scale": "relative"}
    bounds = [get(made, name, **lift) for name in ("lift_low", "lift", "lift_high")]
    assert bounds == [effect.always_low, effect.estimate, effect.always_high]
    assert get(made, "srm_mismatch", experiment=e) == 0
    assert get(made, "guardrail", **arm, guardrail="hides", state="ok") == 1
    assert get(made, "guardrail", **arm, guardrail="hides", state="broken") == 0
    assert get(made, "verdict", experiment=e, verdict="ship") == 1
    assert get(made, "verdict", experiment=e, verdict="wait") == 0


def test_what_is_not_known_has_no_series(tmp_path: Path) -> None:
    path = tmp_path / "experiment.prom"
    write_experiment_metrics(path, statuses.empty())
    assert "nan" not in path.read_text().lower()
    names = {name for name, _ in samples(path)}
    assert "gref_experiment_running" in names
    assert not names & {"gref_experiment_srm_p", "gref_experiment_lift"}
    stopped = msgspec.structs.replace(statuses.broken(), state="stopped")
    write_experiment_metrics(path, stopped)
    found = samples(path)
    assert value(found, "gref_experiment_running", experiment="three-arms") == 0
    assert value(found, "gref_experiment_srm_mismatch", experiment="three-arms") == 1


def test_what_is_left_of_an_experiment_that_is_over(tmp_path: Path) -> None:
    path = tmp_path / "experiment.prom"
    write_experiment_metrics(path, statuses.broken())
    write_stopped(path, "three-arms")
    over = ("gref_experiment_running", frozenset({("experiment", "three-arms")}))
    assert samples(path) == {over: 0}


def test_a_file_that_nobody_would_read_is_refused(tmp_path: Path) -> None:
    for wrong in (tmp_path / "a.txt", tmp_path / "b" / "c.prom"):
        with pytest.raises(ContractError):
            write_experiment_metrics(wrong, statuses.empty())
