"""The promise: after kills, rebalances and broker restarts the table holds each closed slate once,
with exactly its timely feedback, and every late or bad message is a dead letter as it was sent.

Real processes all: a broker that keeps its messages on S3, consumer members, random kills.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from contracts.reading import write_yaml
from deploy.local_broker import LocalBroker
from tests.contracts.examples import SPEC
from tests.streaming.promise.cluster import PARTITIONS, Cluster
from tests.streaming.promise.comparison import compare
from tests.streaming.promise.oracle import Rules, judge
from tests.streaming.promise.reading import read_dead_letters, read_rows, read_topics
from tests.streaming.promise.traffic import (
    BAD,
    CONFLICT,
    LATE,
    NOT_SHOWN,
    ORPHAN,
    UNFIT,
    Clock,
    aftermath,
    pushers,
    traffic,
)
from tests.streaming.promise.windows import breaches, wrong_starts

pytestmark = pytest.mark.timeout(300)

SLATES = 800
WINDOW_S, LATENESS_S = 60, 120
#: What the consumer may say of each kind of wrong message.
REASONS = {
    BAD: {"too_large", "malformed", "unknown_version", "future"},
    UNFIT: {"other_features", "feature_value", "unknown_kind", "wrong_value", "wrong_key"},
    CONFLICT: {"conflicting_exposure"},
    # Who took a lane over does not know the slates that were closed before.
    LATE: {"late_feedback", "late_exposure", "no_exposure"},
    ORPHAN: {"no_exposure"},
    NOT_SHOWN: {"item_not_shown"},
}
ACTIONS = [
    "add_member",
    "kill_member",
    "kill_broker",
    "kill_member",
    "stop_member",
    "kill_everything",
]


@pytest.mark.parametrize("seed", [3])
def test_promise(durable_broker: LocalBroker, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    now = int(time.time() * 1000)
    clock = Clock(now - 3_600_000, WINDOW_S * 1000, LATENESS_S * 1000)
    rules = Rules(clock.join_window, clock.lateness, future=now + 43_200_000)
    script = traffic(seed, SLATES, clock)
    write_yaml(tmp_path / "features.yaml", SPEC)
    arguments = ["--features", tmp_path / "features.yaml", "--join-window", f"{WINDOW_S}s"]
    arguments += ["--lateness", f"{LATENESS_S}s", "--commit-interval", "1s"]
    arguments += ["--session-timeout", "6s", "--idle-after", "5s"]
    with Cluster(durable_broker, tmp_path, arguments, rng) as cluster:
        cluster.add_member()
        cluster.add_member()
        cluster.torment(script, rng.sample(ACTIONS, len(ACTIONS)))
        for partition in range(PARTITIONS):
            cluster.sender.send(pushers(partition, now - 1_800_000, "push"), partition)
        closed_at = cluster.sender.ends()
        cluster.wait_rows(SLATES)

        # Every slate is in the table: whatever comes for one now is late.
        cluster.sender.send(aftermath(seed, script, 60))
        ends = cluster.sender.ends()
        cluster.wait_read(ends)
        cluster.stop_all()

        messages = read_topics(durable_broker.address, ends)
        truth = judge(messages, rules, closed_at)
        letters = read_dead_letters(durable_broker.address)
        rows = read_rows(str(cluster.table))
    verdict = compare(truth, rows, letters, REASONS)
    again = sum(one.read_again for one in cluster.take_overs)
    print(
        f"{len(messages)} messages, {len(truth.rows)} slates, {len(truth.dead)} dead letters "
        f"({verdict.repeats} repeated), {len(cluster.take_overs)} take-overs read {again} again, "
        f"{len(cluster.commits)} commits\n{cluster.diary}"
    )
    assert not verdict.broken, f"{verdict}\n{cluster.diary}"
    assert len(truth.rows) == SLATES
    assert verdict.repeats < len(truth.dead), "more letters came again than kills can explain"
    assert not breaches(cluster.commits, messages, truth, rules)
    assert not wrong_starts(cluster.commits, cluster.take_overs)
    assert again, "no lane was taken over with its window open: nothing was put to the test"
