"""deploy/rollout.py from the first release to the end of an experiment, on two real Tritons."""

from __future__ import annotations

import json
import os
import signal

import pytest
from typer.testing import CliRunner, Result

from deploy.rollout import app
from deploy.served_repository import add_release
from tests.rollout.conftest import World
from tests.serving.processes import children, wait_until
from training.release.durable import write_durably

QUICK = ("--drain", "0")


def rollout(world: World, *words: object) -> Result:
    """A command with the world's options; no exception may escape it."""
    command = str(words[0])
    quick = () if command in ("status", "render") else QUICK
    result = CliRunner().invoke(app, [*map(str, words), *world.options, *quick])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def done(world: World, *words: object) -> str:
    result = rollout(world, *words)
    assert result.exit_code == 0, result.output
    return result.output


def test_from_the_first_release_to_a_promotion_and_back(world: World) -> None:
    done(world, "promote", "r0001")
    assert world.routing().releases == ("r0001",)

    out = done(world, "start", "trial")
    assert world.loaded() == [("r0001", "r0002")] * 2
    assert "r0002 answers on 2 of 2 replicas" in out
    assert world.routing().releases == ("r0001", "r0002")
    assert world.experiment().state == "running"
    assert world.experiment().started is not None
    assert world.routing().experiments == (world.experiment(),)

    done(world, "ramp", "trial", "--to", 0.75)
    assert [arm.weight for arm in world.routing().experiments[0].arms] == [0.25, 0.75]

    done(world, "promote", "trial", "--reason", "it won")
    assert (world.routing().champion, world.routing().experiments) == ("r0002", ())
    assert world.experiment().state == "stopped"
    assert (world.record().release, world.record().changes[-1].reason) == ("r0002", "it won")
    assert world.loaded() == [("r0001", "r0002")] * 2, "the one before stays, for a rollback"

    out = done(world, "rollback", "--reason", "it lost")
    assert world.routing().champion == world.record().release == "r0001"
    assert world.record().changes[-1].rollback
    assert world.loaded() == [("r0001",)] * 2
    assert "r0002 is unloaded" in out


def test_every_command_again_changes_nothing(world: World) -> None:
    steps = (
        ("promote", "r0001"),
        ("start", "trial"),
        ("ramp", "trial", "--to", 0.25),
        ("promote", "trial"),
        ("rollback", "--to", "r0001"),
    )
    for words in steps:
        done(world, *words)
        before = contents(world)
        assert "nothing to switch" in done(world, *words), words
        assert contents(world) == before


def test_an_experiment_is_rolled_back(world: World) -> None:
    done(world, "start", "trial")
    done(world, "rollback", "trial")
    assert (world.routing().champion, world.routing().experiments) == ("r0001", ())
    assert world.experiment().state == "stopped"
    assert world.loaded() == [("r0001",)] * 2
    refused = rollout(world, "start", "trial")
    assert refused.exit_code == 3
    assert "was stopped; copy its manifest under another name" in refused.output
    assert rollout(world, "ramp", "trial", "--to", 0.1).exit_code == 3


def test_comments_stay_and_stages_are_noted(world: World) -> None:
    before = world.places.manifest("trial").read_text().splitlines()
    done(world, "start", "trial")
    done(world, "ramp", "trial", "--to", 0.25)
    after = world.places.manifest("trial").read_text().splitlines()
    assert len(after) == len(before) + 1, "started"
    changed = [new for old, new in zip(before, after) if old != new]
    assert changed == [
        "state: running # set by the rollout",
        "    weight: 0.75 # what is left",
        "  - {name: treatment, release: r0002, weight: 0.25} # in one line",
    ]
    history = json.loads((world.places.experiments / "history" / "trial.json").read_text())
    weights = [stage["weights"]["treatment"] for stage in history["stages"]]
    assert weights == [0.5, 0.25]


def test_a_release_that_one_replica_has_not(world: World) -> None:
    """The second Triton has no r0003: its name is told, and nobody is sent there."""
    done(world, "promote", "r0001")
    world.write(release="r0003")
    before = contents(world)
    result = rollout(world, "start", "trial")
    assert result.exit_code == 3
    assert f"{world.addresses[1]}: failed to load 'gref_r0003'" in result.output
    assert world.addresses[0] not in result.output
    assert contents(world) == before


def test_a_replica_that_cannot_be_reached(world: World) -> None:
    """A start is refused; a rollback goes on without it."""
    done(world, "start", "trial")
    dead = ("--replica", "127.0.0.1:1")
    refused = rollout(world, "ramp", "trial", "--to", 0.1, *dead)
    assert refused.exit_code == 3
    assert "127.0.0.1:1" in refused.output
    assert world.routing().experiments[0].arms[1].weight == 0.5
    done(world, "promote", "trial")
    out = done(world, "rollback", *dead)
    assert "warning: 127.0.0.1:1" in out
    assert world.routing().champion == "r0001"


def test_a_dead_engine_is_found_out_and_started_anew(world: World) -> None:
    """Triton goes on calling a model ready whose process died; a start must not believe it."""
    world.load_only("r0001", "r0002")
    pid = world.stacks[0].state().pid
    victims = [one for one, line in children(pid).items() if "gref_r0002_decoder" in line]
    assert victims
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    wait_until(lambda: not set(victims) & set(children(pid)), "the engine's process to end")
    out = done(world, "start", "trial")
    assert f"loaded on {world.addresses[0]}" in out
    assert world.stacks[0].failure("r0002") is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"release": "r0009"}, "no release r0009"),
        ({"weight": 0.5, "control": 0.4}, "weights of arms sum to 0.9"),
        ({"weight": 0.00005}, "multiple of 0.0001"),
        ({"state": "going"}, "state"),
        ({"tail": "colour: red\n"}, "colour"),
        ({"release": "r0001"}, "arms control and treatment of experiment trial would both"),
    ],
)
def test_bad_manifests_are_refused(world: World, changes: dict[str, object], told: str) -> None:
    done(world, "promote", "r0001")
    world.write(**changes)
    before = contents(world)
    result = rollout(world, "start", "trial")
    assert result.exit_code in (2, 3)
    assert told in result.output
    assert contents(world) == before


def test_two_experiments_that_claim_one_layer(world: World) -> None:
    done(world, "start", "trial")
    world.write("other", release="r0001")
    result = rollout(world, "start", "other")
    assert result.exit_code == 2
    assert "experiments other and trial both run in layer ranking" in result.output
    assert [one.name for one in world.routing().experiments] == ["trial"]


def test_render_is_the_same_bytes_each_time(world: World) -> None:
    """Also from another checkout; what it writes is what clients read when nothing was edited."""
    folder = world.folder / "kubernetes"

    def render(*words: str) -> Result:
        places = world.places
        told = ["--experiments", str(places.experiments), "--releases", str(places.store.folder)]
        return CliRunner().invoke(app, ["render", "--kubernetes", str(folder), *told, *words])

    for words in (("promote", "r0001"), ("promote", "r0003", "--replica", world.addresses[0])):
        # The second Triton has no r0003.
        done(World(world.folder, world.stacks[:1]), *words)
    world.write(release="r0002")
    done(World(world.folder, world.stacks[:1]), "start", "trial")
    assert render("--check").exit_code == 3
    assert not folder.exists()
    assert render().exit_code == 0
    assert render("--check").exit_code == 0
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert files == {
        "routing.json": world.places.routing.read_bytes(),
        "undo.json": (world.folder / "undo.json").read_bytes(),
    }
    assert json.loads(files["undo.json"])["champion"] == "r0001"
    assert "up to date" in render().output
    path = world.places.manifest("trial")
    path.write_text(path.read_text().replace("state: running", "state: stopped"))
    assert "outdated" in render("--dry-run").output
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    assert "wrote routing.json" in render().output
    world.write("other", state="running", tail="started: '2026-03-01T09:00:00Z'\n")
    world.write("more", state="running", tail="started: '2026-03-01T09:00:00Z'\n")
    result = render()
    assert result.exit_code == 2
    assert "experiments more and other both run in layer ranking" in result.output


def test_bad_words(world: World) -> None:
    done(world, "start", "trial")
    for words, told in (
        (("start", "nobody"), "no experiment nobody; there are: trial"),
        (("ramp", "trial", "--to", 1.5), "--to is 1.5; allowed: 0 to 1"),
        (("ramp", "trial", "--to", 0.12345), "multiple of 0.0001"),
        (("ramp", "trial", "--to", 0.1, "--arm", "control"), "is the control"),
        (("ramp", "trial", "--to", 0.1, "--arm", "x"), "there are: control, treatment"),
        (("promote", "r0009"), "no release r0009"),
        (("promote", "trial", "--arm", "x"), "there are: control, treatment"),
        (("rollback", "--to", "r0002"), "no champion to go back to"),
        (("rollback", "nobody"), "no experiment nobody"),
        (("status", "--table", "x"), "give NAME"),
        (("start", "trial", "--replica", "nowhere"), "allowed: host:port"),
    ):
        result = rollout(world, *words)
        assert result.exit_code == 2, (words, result.output)
        assert told in result.output, (words, result.output)


def test_an_edit_that_would_move_units(world: World) -> None:
    done(world, "start", "trial")
    path = world.places.manifest("trial")
    path.write_text(path.read_text().replace("salt-trial", "another"))
    result = rollout(world, "start", "trial")
    assert result.exit_code == 3
    assert "has other salt by now" in result.output
    assert "is not what clients read" in rollout(world, "status").output


def test_edited_weights_come_into_force_by_a_start(world: World) -> None:
    """Weights may be changed in git instead of by `ramp`."""
    done(world, "start", "trial")
    path = world.places.manifest("trial")
    path.write_text(
        path.read_text().replace("weight: 0.5", "weight: 0.4").replace("0.4 #", "0.6 #")
    )
    done(world, "start", "trial")
    assert [arm.weight for arm in world.routing().experiments[0].arms] == [0.6, 0.4]
    history = json.loads((world.places.experiments / "history" / "trial.json").read_text())
    assert [stage["weights"]["treatment"] for stage in history["stages"]] == [0.5, 0.4]


def test_a_rollback_needs_no_manifest_that_is_whole(world: World) -> None:
    """Three in the morning: somebody broke two manifests. Traffic goes back all the same."""
    done(world, "start", "trial")
    path = world.places.manifest("trial")
    whole = path.read_text()
    path.write_text("name: [")
    world.places.manifest("other").write_text("}")
    result = rollout(world, "rollback", "trial")
    assert result.exit_code == 2
    assert "clients read the new routing" in result.output
    assert "not valid YAML" in result.output
    assert world.routing().experiments == ()
    path.write_text(whole)
    world.places.manifest("other").unlink()
    done(world, "rollback", "trial")
    assert world.experiment().state == "stopped"


def test_what_a_rollback_would_take_back_follows_a_champion_named_by_hand(world: World) -> None:
    for release in ("r0001", "r0002"):
        done(world, "promote", release)
    world.places.store.set_champion("r0001", "by hand")
    done(world, "promote", "r0001")
    undo = json.loads((world.folder / "undo.json").read_text())
    assert undo["champion"] == "r0002"


def test_a_manifest_that_was_deleted_while_it_runs(world: World) -> None:
    done(world, "start", "trial")
    world.places.manifest("trial").unlink()
    out = done(world, "rollback", "trial")
    assert "trial.yaml is gone; it would say that trial is stopped" in out
    assert world.routing().experiments == ()
    assert "nothing to switch" in done(world, "promote", "r0001"), "and nothing is stuck"


def test_routing_and_record_that_disagree(world: World) -> None:
    """Somebody moved the champion by hand: no start may take clients along unasked."""
    done(world, "promote", "r0001")
    world.places.store.set_champion("r0002", "by hand")
    result = rollout(world, "start", "trial")
    assert result.exit_code == 3
    assert "settle it first: python deploy/rollout.py promote r0002" in result.output
    assert rollout(world, "status", "--check").exit_code == 3
    done(world, "promote", "r0002")
    assert world.routing().champion == "r0002"
    world.places.store.rollback("by hand")
    done(world, "rollback")
    assert world.routing().champion == world.record().release == "r0001"
    assert len(world.record().changes) == 3, "the record was rolled back once"


def test_a_damaged_routing_is_told_and_rolled_back_over(world: World) -> None:
    done(world, "start", "trial")
    write_durably(world.places.routing, b'{"version": 1')
    assert rollout(world, "ramp", "trial", "--to", 0.1).exit_code == 2
    assert "damaged" in rollout(world, "status").output
    done(world, "rollback", "trial")
    assert world.routing().experiments == ()


def test_dry_runs_change_nothing(world: World) -> None:
    done(world, "promote", "r0001")
    before, loaded = contents(world), world.loaded()
    out = done(world, "start", "trial", "--dry-run")
    for address in world.addresses:
        assert f"would load r0002 on {address}" in out
    assert "experiment trial running" in out
    assert (contents(world), world.loaded()) == (before, loaded)
    done(world, "start", "trial")
    before = contents(world)
    assert "control 0.9, treatment 0.1" in done(world, "ramp", "trial", "--to", 0.1, "--dry-run")
    assert "champion r0001 -> r0002" in done(world, "promote", "trial", "--dry-run")
    out = done(world, "rollback", "trial", "--dry-run")
    assert "experiment trial stopped" in out
    assert f"would unload r0002 on {world.addresses[1]}" in out
    assert contents(world) == before
    done(world, "promote", "trial")
    before = contents(world)
    assert "champion r0002 -> r0001" in done(world, "rollback", "--dry-run")
    assert contents(world) == before


def test_status_sees_what_replicas_lack(world: World) -> None:
    done(world, "start", "trial")
    done(world, "status", "--check")
    stack, lacking = world.stacks[1], world.addresses[1]
    source = (stack.home.repository / "gref_r0002").resolve().parents[1]
    stack.unload("r0002")
    add_release(source, stack.home.repository)  # unload took it out
    result = rollout(world, "status", "--json", "--check")
    assert result.exit_code == 3
    state = json.loads(result.output)["serving"]
    assert state["problems"] == [f"replica {lacking}: r0002 is not loaded"]
    missing = {one["address"]: one["missing"] for one in state["replicas"]}
    assert missing == {world.addresses[0]: [], lacking: ["r0002"]}
    done(world, "start", "trial")
    assert json.loads(done(world, "status", "--json"))["serving"]["problems"] == []


def contents(world: World) -> dict[str, bytes]:
    """Every file but the releases' own and the locks."""
    return {
        str(path.relative_to(world.folder)): path.read_bytes()
        for path in sorted(world.folder.rglob("*"))
        if path.is_file() and "/r0" not in str(path) and not path.name.endswith(".lock")
    }
