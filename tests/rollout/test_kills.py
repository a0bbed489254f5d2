"""A command that is killed at any of its steps: clients are never sent to a release that is not
there, and the same command again ends where one that was never killed ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.rollout.conftest import World
from tests.rollout.test_commands import done
from tests.serving.processes import run

pytestmark = pytest.mark.timeout(240)
DIE = Path(__file__).with_name("rollout_and_die.py")


def killed(world: World, kind: str, loaded: str, *words: object) -> list[dict[str, Any]]:
    """What was to be seen after each kill and after each repetition, checked for what always is."""
    copy = world.folder.with_name(f"copy-{kind}")
    result = run(DIE, kind, world.folder, copy, world.addresses[0], loaded, *words)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert not lines[-1]["killed"], "the last one was not killed"
    final = lines[-1]["seen"]
    assert final["left"] == []
    for line in lines:
        assert line["seen"]["silent"] == [], f"clients are sent to nobody: {line}"
        assert not line["killed"] or line["repeated"] == final, f"not the same end: {line}"
    return lines


@pytest.fixture
def lone(world: World) -> World:
    """The first replica alone, which has all three releases."""
    return World(world.folder, world.stacks[:1])


def test_a_start(lone: World) -> None:
    done(lone, "promote", "r0001")
    lines = killed(lone, "files", "r0001,r0002", "start", "trial")
    assert len(lines) > 15, "the operations were not seen"
    final = lines[-1]["seen"]
    assert final["experiments"] == {"trial": ["running", [0.5, 0.5]]}
    assert final["routing"] == {"trial": [0.5, 0.5]}
    assert final["stages"] == {"trial": [{"control": 0.5, "treatment": 0.5}]}
    assert final["loaded"] == ["r0001", "r0002"]
    switched = [line["seen"]["routing"] != {} for line in lines]
    assert switched == sorted(switched), "once it is made it is made"
    assert set(switched) == {True, False}


def test_a_start_that_loads(lone: World) -> None:
    done(lone, "promote", "r0001")
    lines = killed(lone, "calls", "r0001", "start", "trial")
    assert len(lines) == 3, "the load was not seen: before it, and under way"
    assert lines[-1]["seen"]["routing"] == {"trial": [0.5, 0.5]}
    assert [line["seen"]["routing"] for line in lines[:-1]] == [{}, {}]


def test_a_promotion(lone: World) -> None:
    """r0001 is the champion before the last, and is unloaded."""
    lone.load_only("r0001", "r0002", "r0003")
    done(lone, "promote", "r0002")
    lone.write(release="r0003")
    done(lone, "start", "trial")
    loaded = "r0001,r0002,r0003"
    lines = killed(lone, "files", loaded, "promote", "trial", "--keep", 2)
    assert len(lines) > 15, "the operations were not seen"
    final = lines[-1]["seen"]
    assert (final["champion"], final["record"]) == ("r0003", ["r0001", "r0002", "r0003"])
    assert final["experiments"]["trial"][0] == "stopped"
    lines = killed(lone, "calls", loaded, "promote", "trial")
    assert len(lines) > 2, "the unloads were not seen"
    assert lines[-1]["seen"] == {**final, "loaded": ["r0002", "r0003"]}


def test_a_rollback_of_the_champion(lone: World) -> None:
    """Repeated, it does not go back twice."""
    for release in ("r0001", "r0002", "r0003"):
        done(lone, "promote", release)
    lone.write(release="r0003")  # a draft names it, so it stays loaded
    lines = killed(lone, "files", "r0002,r0003", "rollback")
    assert len(lines) > 15, "the operations were not seen"
    final = lines[-1]["seen"]
    assert final["record"] == ["r0001", "r0002", "r0003", "r0002"]
    assert final["champion"] == "r0002"
    assert lines[-1]["repeated"]["champion"] == "r0001", "one that was done goes further back"
    behind = [line["seen"] for line in lines if line["seen"]["record"][-1] != "r0002"]
    assert any(seen["champion"] == "r0002" for seen in behind), "clients are switched first"


def test_a_rollback_of_an_experiment(lone: World) -> None:
    done(lone, "start", "trial")
    lines = killed(lone, "calls", "r0001,r0002", "rollback", "trial")
    final = lines[-1]["seen"]
    assert (final["routing"], final["experiments"]["trial"][0]) == ({}, "stopped")
    assert final["loaded"] == ["r0001"]
