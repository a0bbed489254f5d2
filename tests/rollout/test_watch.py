"""status and watch: what an experiment shows, and what is done about it by itself."""

from __future__ import annotations

import json
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from contracts.assignment import assign_many
from deploy.analysis.experiment_status import read_status
from deploy.analysis.status import ExperimentStatus
from deploy.rolling.watching import DwellClock, Ramp, RollBack, Wait, decide, seconds, weights
from tests.analysis.tables import STARTED, traffic, write
from tests.rollout.conftest import World
from tests.rollout.manifests import experiment_of
from tests.rollout.test_commands import done, rollout


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Lists of the experiment ``trial``: ``calm`` without harm, ``hurt`` where many fall back."""
    folder = tmp_path_factory.mktemp("tables")
    columns = traffic(1500, 9_000, seed=3)
    one = experiment_of("trial", state="running", tail=f"started: '{STARTED}'\n")
    arm = assign_many(one, columns["user"])
    columns["arm"] = np.array(["trial/control", "trial/treatment"])[arm]
    hurt = (arm == 1) & (np.arange(len(arm)) % 5 == 0)
    return {
        "calm": write(folder / "calm", columns),
        "hurt": write(folder / "hurt", {**columns, "fallback": np.where(hurt, "unavailable", "")}),
    }


@pytest.fixture
def running(world: World) -> World:
    """``trial`` runs since the time that the tables begin."""
    world.write(state="running", tail=f"started: '{STARTED}'\n")
    done(world, "start", "trial")
    (world.places.experiments / "history" / "trial.json").unlink()
    return world


def test_a_broken_guardrail_is_rolled_back(
    running: World, tables: dict[str, str], tmp_path: Path
) -> None:
    metrics = tmp_path / "watch.prom"
    words = ("watch", "trial", "--table", tables["hurt"], "--once", "--metrics", metrics)
    result = rollout(running, *words)
    assert result.exit_code == 3, result.output
    assert "Guardrail fallback_share of treatment is broken" in result.output
    assert running.routing().experiments == ()
    assert running.experiment().state == "stopped"
    assert running.loaded() == [("r0001",)] * 2
    # The alerts on it are over, whether this watch ended it or somebody else did.
    over = 'gref_experiment_running{experiment="trial"} 0.0'
    assert [one for one in metrics.read_text().splitlines() if one[:1] != "#"] == [over]
    metrics.unlink()
    again = rollout(running, *words)
    assert over in metrics.read_text()
    assert again.exit_code == 0
    assert "does not run" in again.output


def test_no_harm_goes_on_and_ramps(running: World, tables: dict[str, str], tmp_path: Path) -> None:
    """Dwelling is by the machine's clock, which begins when the watch first sees a weight."""
    page, metrics = tmp_path / "page.html", tmp_path / "trial.prom"
    words = ("watch", "trial", "--table", tables["calm"], "--once", "--steps", "0.5,0.6")
    out = done(running, *words, "--dwell", "1h", "--html", page, "--metrics", metrics)
    assert "next step (0.6) in 3600 s" in out
    assert "<html" in page.read_text()
    assert "gref_experiment_running" in metrics.read_text()
    time.sleep(0.02)
    out = done(running, *words, "--dwell", "0.01s")
    assert "ramping treatment to 0.6" in out
    assert running.routing().experiments[0].arms[1].weight == 0.6
    assert running.experiment().arms[1].weight == 0.6


def test_status_says_it_all(running: World, tables: dict[str, str]) -> None:
    out = done(running, "status", "trial", "--table", tables["calm"])
    for told in ("champion", "answers", "treatment", "fallback_share", "sample ratio ok"):
        assert told in out
    plain = json.loads(done(running, "status", "trial", "--table", tables["calm"], "--json"))
    status = msgspec.convert(plain["experiment"], ExperimentStatus)
    assert [arm.release for arm in status.arms] == ["r0001", "r0002"]
    assert plain["serving"]["problems"] == []


def test_watch_of_nothing(running: World, tmp_path: Path, tables: dict[str, str]) -> None:
    for words, told in (
        (("--table", tmp_path / "none"), "none"),
        (("--table", tables["calm"], "--every", "soon"), "allowed: such as 90s"),
        (("--table", tables["calm"], "--steps", "0.5,0.2"), "rising weights"),
    ):
        result = rollout(running, "watch", "trial", "--once", *words)
        assert result.exit_code == 2
        assert told in result.output


@pytest.fixture(scope="module")
def calm(tables: dict[str, str]) -> ExperimentStatus:
    one = experiment_of("trial", state="running", tail=f"started: '{STARTED}'\n")
    return read_status(one, tables["calm"])


STEPS = (0.1, 0.6, 0.9)


def test_decisions(calm: ExperimentStatus) -> None:
    def act(status: ExperimentStatus, dwelt: float = 100.0) -> object:
        return decide(status, "treatment", STEPS, dwelt, 100.0)

    assert act(calm) == Ramp(0.6)
    assert isinstance(act(calm, 99.0), Wait)
    assert isinstance(decide(calm, None, (), 1e9, 0.0), Wait), "without steps it never ramps"
    replace = msgspec.structs.replace
    harmed = replace(calm, verdict="roll back", words=("Broken.", "Next."))
    assert act(harmed) == RollBack("Broken. Next.")
    assert decide(harmed, None, (), 0.0, 0.0) == RollBack("Broken. Next.")
    for doubt in (
        replace(calm, verdict="stop"),
        replace(calm, srm=replace(calm.srm, ok=False)),
        replace(calm, guardrails=(replace(calm.guardrails[0], state="unknown"),)),
        replace(calm, arms=(calm.arms[0], replace(calm.arms[1], weight=0.9))),
    ):
        assert isinstance(act(doubt), Wait), doubt.verdict


def test_nobody_can_set_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = DwellClock(tmp_path / "routing.json")
    assert clock.dwelt_s("trial/treatment", 0.1) == 0.0
    for jump in (-1e9, 1e9):  # the wall clock of whoever reads it
        monkeypatch.setattr(time, "time", lambda jump=jump: jump)
        assert 0.0 < clock.dwelt_s("trial/treatment", 0.1) < 3600.0
    assert clock.dwelt_s("other/treatment", 0.1) == 0.0
    assert clock.dwelt_s("trial/treatment", 0.1) > 0.0, "one mark does not displace another"
    assert clock.dwelt_s("trial/treatment", 0.2) == 0.0, "another weight begins anew"
    clock.path.write_text("{")
    assert clock.dwelt_s("trial/treatment", 0.2) == 0.0, "a damaged file begins anew"
    # Another boot's clock may be ahead or behind: never believed.
    plain = json.loads(clock.path.read_text())
    plain["arms"]["trial/treatment"]["boot"] = "another"
    plain["arms"]["trial/treatment"]["seconds"] = -1e9
    clock.path.write_text(json.dumps(plain))
    assert clock.dwelt_s("trial/treatment", 0.2) == 0.0


def test_words_for_times_and_weights() -> None:
    assert [seconds(text) for text in ("90s", "5m", "1.5h", "2d")] == [90, 300, 5400, 172800]
    assert weights("0.01,0.05,1") == (0.01, 0.05, 1.0)
    for text in ("", "0s", "5", "-1s", "1w"):
        with pytest.raises(ValueError, match="allowed"):
            seconds(text)
    for text in ("", "0", "1.5", "0.2,0.1", "0.1,0.1", "a"):
        with pytest.raises(ValueError, match="allowed"):
            weights(text)
