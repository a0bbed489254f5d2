"""Promote and roll back, again and again, under load: no failed request, no wrong answer.

GREF_ROLLOUT_CYCLES sets the number of cycles (docs/rollout.md has the figures of 50).
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import pytest

from contracts.routing import Routing
from deploy.rolling import switching
from tests.rollout.conftest import World
from tests.rollout.test_commands import rollout
from tests.rollout.traffic import Seen, traffic
from tests.serving.processes import wait_until

CYCLES = int(os.environ.get("GREF_ROLLOUT_CYCLES", "6"))


@pytest.mark.timeout(120 + 30 * CYCLES)
def test_cycles_under_load(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[float] = []

    def write_routing(path: Path, routing: Routing) -> None:
        if path == world.places.routing:
            written.append(time.perf_counter())  # before: a client may be faster than its fsync
        write(path, routing)

    write = switching.write_routing
    monkeypatch.setattr(switching, "write_routing", write_routing)

    def done(*words: object) -> None:
        result = rollout(world, *words, "--drain", 1)
        assert result.exit_code == 0, result.output

    world.places.manifest("trial").unlink()  # a draft that names r0002 would keep it loaded
    done("promote", "r0001")
    asked, first, every = [], [], []
    with traffic(world.addresses, world.places.routing) as seen:
        wait_until(lambda: seen.answers > 20, "the first answers")
        for cycle in range(CYCLES):
            name = f"trial-{cycle}"
            world.write(name)
            done("start", name)
            done("ramp", name, "--to", 0.9)
            arms = {f"{name}/control", f"{name}/treatment"}
            wait_until(lambda: arms <= seen.arms, f"both arms of {name}")  # noqa: B023
            done("promote", name)
            assert world.routing().champion == "r0002"
            seen_by_all(seen, "r0002", written[-1])
            assert not seen.wrong, seen.wrong[:5]
            begun = time.perf_counter()
            done("rollback")
            moments = seen_by_all(seen, "r0001", written[-1])
            asked.append(written[-1] - begun)
            first.append(min(moments) - written[-1])
            every.append(max(moments) - written[-1])
            assert world.loaded() == [("r0001",)] * 2, "r0002 is loaded anew in each cycle"
    assert not seen.wrong, seen.wrong[:5]
    assert set(seen.by_release) == {"r0001", "r0002"}
    print(f"\n{CYCLES} cycles, {seen.answers} answers, {len(seen.wrong)} wrong, {seen.by_release}")
    for what, times in (
        ("command to write", asked),
        ("write to the first client's answer", first),
        ("write to the last client's answer", every),
    ):
        told = f"median {1000 * statistics.median(times):.0f} ms, worst {1000 * max(times):.0f} ms"
        print(f"rollback, {what}: {told}")


def seen_by_all(seen: Seen, champion: str, since: float, clients: int = 3) -> list[float]:
    """When each client gave the champion's first answer after a moment; waits for all."""

    def moments() -> list[float]:
        return [at for name, at, _ in list(seen.changes) if name == champion and at > since]

    wait_until(lambda: len(moments()) >= clients, f"all clients to follow to {champion}")
    return moments()
