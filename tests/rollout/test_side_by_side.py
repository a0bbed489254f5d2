"""Two rollouts at once: one waits or is refused, and a rollback waits for nobody."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from deploy.rolling import plans
from deploy.rolling.loading import Install
from deploy.rolling.locking import locked
from deploy.rolling.replicas import Fleet, ReplicaError
from deploy.rolling.rollouts import Rollout
from tests.rollout.conftest import World
from tests.rollout.test_commands import done, rollout
from tests.rollout.test_plans import AT
from training.command import Refused


class Meanwhile(Install):
    """Does something once, while releases are being loaded."""

    def __init__(self, what: Callable[[], object]) -> None:
        super().__init__()
        self.what: Callable[[], object] | None = what

    def __call__(self, release: Path) -> None:
        if self.what is not None:
            what, self.what = self.what, None
            what()


def made(world: World, install: Install | None = None, **options: object) -> Rollout:
    fleet = Fleet(world.addresses[:1])
    return Rollout(world.places, fleet, install or Install(), print, drain_s=0.0, **options)  # type: ignore[arg-type]


def test_a_second_rollout_is_refused_and_a_rollback_is_not(world: World) -> None:
    done(world, "start", "trial")
    with locked(world.places.routing, "work", 0.0):
        busy = rollout(world, "ramp", "trial", "--to", 0.1, "--wait", 0)
        assert busy.exit_code == 2
        assert "another rollout is at work (process" in busy.output
        out = done(world, "rollback", "trial")
        assert "another rollout is at work; it unloads" in out
        assert world.routing().experiments == ()
        assert world.loaded() == [("r0001", "r0002")] * 2
    done(world, "rollback", "trial")
    assert world.loaded() == [("r0001",)] * 2, "the next one has unloaded it"


def test_a_rollback_while_a_start_loads(world: World) -> None:
    """The start begins under r0002 and is planned anew under r0001."""
    for release in ("r0001", "r0002"):
        done(world, "promote", release)
    world.write(release="r0003")
    other = made(world)
    start = made(world, Meanwhile(partial(other.back, None, "harm")))
    start.run(partial(plans.plan_start, name="trial", at=AT))
    routing = world.routing()
    assert (routing.champion, routing.releases) == ("r0001", ("r0001", "r0003"))
    assert world.record().release == "r0001"
    assert world.loaded()[0] == ("r0001", "r0003"), "the start has unloaded r0002"


def test_an_experiment_that_is_rolled_back_while_it_is_ramped(world: World) -> None:
    done(world, "start", "trial")
    other = made(world)
    ramp = made(world, Meanwhile(partial(other.stop, "trial")))
    with pytest.raises(Refused, match="trial is a stopped"):
        ramp.run(partial(plans.plan_ramp, name="trial", arm="treatment", to=0.9, at=AT))
    assert world.routing().experiments == ()


def test_a_rollback_while_a_promotion_drains(world: World) -> None:
    """What the promotion was about to unload is the way back from then on."""
    world.places.manifest("trial").unlink()
    for release in ("r0001", "r0002"):
        done(world, "promote", release)
    other = made(world)

    def say(words: str) -> None:
        if "draining" in words:
            other.back(None, "harm")

    promotion = made(world)
    promotion.say = say
    promotion.run(partial(plans.plan_champion, release="r0003", reason=""))
    assert world.routing().champion == world.record().release == "r0002"
    assert world.loaded()[0] == ("r0001", "r0002")


def test_a_replica_that_hangs_while_it_unloads(world: World) -> None:
    """A rollback gets in while replicas are asked, and an unload that hangs is given up soon."""
    world.write("beside", release="champion", layer="other", tail="aa: true")
    for name in ("trial", "beside"):
        done(world, "start", name)
    stack, told = world.stacks[0], []
    promotion, other = made(world, keep=0), made(world)
    promotion.say = told.append
    ask = promotion.fleet.occupied

    def ask_and_freeze() -> dict[str, tuple[str, ...] | ReplicaError]:
        loaded = ask()
        if any("draining" in words for words in told):
            other.stop("beside")
            os.kill(stack.state().pid, signal.SIGSTOP)
        return loaded

    promotion.fleet.occupied = ask_and_freeze  # type: ignore[method-assign]
    try:
        promotion.run(partial(plans.plan_promote, name="trial", arm="treatment", reason=""))
    finally:
        os.kill(stack.state().pid, signal.SIGCONT)
    assert world.routing().experiments == ()
    assert any("not unloaded" in words for words in told)
    done(world, "promote", "r0002", "--keep", 0)
    assert world.loaded() == [("r0002",)] * 2, "the next one has unloaded it"


def test_a_rollback_while_every_replica_is_busy(world: World) -> None:
    """Busy perhaps with the very release that is to go."""
    for release in ("r0001", "r0002"):
        done(world, "promote", release)
    pid = world.stacks[0].state().pid
    os.kill(pid, signal.SIGSTOP)
    wake = threading.Timer(1.0, os.kill, (pid, signal.SIGCONT))
    wake.start()
    try:
        made(world).back(None, "harm")
    finally:
        wake.join()
    assert world.routing().champion == "r0001"
