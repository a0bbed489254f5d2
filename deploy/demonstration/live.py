"""The demo's second half: live traffic, tastes that move, a refresh, rollouts, poison refused.

    users -> Triton (r0001) -> broker -> consumer -> table -> refresh -> r0002 -> experiment

The release loses as tastes move; the refresh, from what its own traffic brought, wins back, and is
promoted when an experiment has shown it. A broken release is rolled back by itself, and feedback of
bots, well-formed as it is, changes nothing: its refresh is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from contracts.datasets import Dataset
from contracts.reading import read_json, write_yaml
from deploy.demonstration.commands import console, run, run_for_summary
from deploy.demonstration.consumer import consumer
from deploy.demonstration.experiments import Rollout, Rollouts
from deploy.demonstration.truth import Judged, judge
from deploy.local_broker import LocalBroker
from deploy.local_triton import LocalTriton
from streaming.traffic.tally import TrafficSummary
from training.evaluation.truth import world_of
from training.sources.world import World

#: Exploration of live traffic: without it no log can tell what another policy would have got.
TEMPERATURE = 0.5
#: Faults of an ordinary day; each has a known fate (streaming/traffic/faults.py).
FAULTS = ("--late", "0.01", "--duplicate", "0.02", "--malformed", "0.005", "--out-of-order", "0.05")
#: For traffic on the wall clock: users of the simulated world act within ten seconds.
SHORT_WINDOW = ("--join-window", "12s", "--lateness", "2s")
#: How long the bots are at it: long enough that most of their windows close, however fast the
#: releases answer.
BOTS_S = 40.0


@dataclass(frozen=True)
class Stage:
    """A stretch of the demo's traffic.

    Attributes:
        drift: from and to; ago, span: its event time, in hours before now.
    """

    name: str
    requests: int
    drift: tuple[float, float]
    seed: int
    ago_h: float = 0.0
    span_h: float = 0.0
    extra: tuple[str, ...] = FAULTS


@dataclass(frozen=True)
class Live:
    """What happened.

    Attributes:
        traffic: of each stage, by its name.
        refreshed, poisoned: summaries of the two refreshes.
        rollouts: of the refreshed release and of a broken one.
        judged: true clicks on the same fresh requests, by release, and "before" for the first
            release in the world that it was trained in; simulated, exact.
        rows, dead_letters: what the consumer wrote.
    """

    traffic: dict[str, TrafficSummary]
    refreshed: dict[str, Any]
    rollouts: Rollouts | None
    poisoned: dict[str, Any] | None
    judged: dict[str, Judged]
    rows: int
    dead_letters: int

    @property
    def fallbacks(self) -> int:
        """Requests that got the given order, of all traffic and of those that judge."""
        lists = sum(sum(one.fallbacks.values()) for one in self.traffic.values())
        return lists + sum(one.fallbacks for one in self.judged.values())


class LiveDemo:
    """Runs the stages against a Triton that serves the first release."""

    def __init__(
        self, triton: LocalTriton, dataset: Dataset, slates: Path, out: Path, requests: int
    ) -> None:
        """``requests`` is the size of the largest stage; the others are parts of it."""
        self._triton, self._slates, self._out = triton, slates, out
        self._world: World = world_of(dataset)
        self._requests = requests
        self._table = out / "feedback"
        self._traffic: dict[str, TrafficSummary] = {}
        self._rows = self._dead_letters = 0.0

    def run(self) -> Live:
        """All of it, in order."""
        out, world, n = self._out, self._world, self._requests
        write_yaml(out / "world.yaml", world.settings)
        moved = world.at(1.0)
        judged = {"before": self._judge("r0001", world), "r0001": self._judge("r0001", moved)}
        console.rule("broker")
        with LocalBroker(out / "broker") as broker:
            broker.create_topics()
            console.print(f"a broker that speaks Kafka's protocol is ready at {broker.address}")
            with self._consumer(broker.address):
                for stage in (
                    Stage("tastes move", n // 3, (0.0, 1.0), seed=11, ago_h=14, span_h=4),
                    Stage("they have moved", n, (1.0, 1.0), seed=12, ago_h=6, span_h=8),
                ):
                    self._send(stage)
                run("streaming/table.py", "validate", self._table)
                refreshed = self._refresh()
            rollouts, poisoned = None, None
            if refreshed["outcome"] == "published":
                name = refreshed["release"]
                console.print(f"{name} is published, and serves nobody yet")
                self._triton.load(out / "releases" / name)
                judged[name] = self._judge(name, moved)
                lift = judged[name].clicks.mean() / judged["r0001"].clicks.mean() - 1
                with self._consumer(broker.address, *SHORT_WINDOW):
                    rollout = Rollout(out, n, self._send_routed)
                    rollouts = rollout.run(name, float(lift))
                    before_bots = DeltaTable(self._table).version()
                    self._send(
                        Stage("bots", n // 2, (1.0, 1.0), seed=14, extra=("--poison", "bots")),
                        rate=n / 2 / BOTS_S,
                    )
                    poisoned = self._refresh("--since-version", before_bots)
        run("training/releases.py", "list", "--releases", out / "releases")
        return Live(
            traffic=self._traffic,
            refreshed=refreshed,
            rollouts=rollouts,
            poisoned=poisoned,
            judged=judged,
            rows=int(self._rows),
            dead_letters=int(self._dead_letters),
        )

    @contextmanager
    def _consumer(self, brokers: str, *options: object) -> Iterator[None]:
        """A consumer beside what happens, and in the end what it wrote."""
        features = self._slates / "features.yaml"
        log = self._out / "consumer.log"
        with consumer(brokers, self._table, features, log, *options) as self._reader:
            self._brokers = brokers
            yield
            self._rows += self._reader.count("rows")
            self._dead_letters += self._reader.count("dead_letters")

    def _send(
        self, stage: Stage, *, routing: Path | None = None, rate: float | None = None
    ) -> None:
        """One stretch of traffic by the command, and wait until its slates are in the table.

        It asks the champion or, with a routing, the release of each user's arm; with a rate, its
        output goes to a file.
        """
        out = self._out
        file = out / "traffic" / f"{_file_name(stage.name)}.json"
        asks = ("--routing", routing) if routing else ("--releases", out / "releases")
        when: tuple[object, ...] = ()
        if stage.span_h:
            when = ("--span", f"{stage.span_h:g}h", "--ago", f"{stage.ago_h:g}h")
        if rate:
            when = (*when, "--rate", f"{rate:g}")
        if not routing:
            when = (*when, "--explore-temperature", TEMPERATURE)
        run(
            "streaming/simulate.py",
            *("--url", self._triton.state().grpc_url, *asks),
            *("--brokers", self._brokers, "--world", out / "world.yaml"),
            *("--requests", stage.requests, "--drift", f"{stage.drift[0]:g}..{stage.drift[1]:g}"),
            *(*when, "--seed", stage.seed, "--deadline-ms", 5000, *stage.extra),
            *("--spool", out / "spool", "--out", file),
            log=file.with_suffix(".log") if rate else None,
        )
        summary = read_json(file, TrafficSummary)
        self._traffic[stage.name] = summary
        with console.status("waiting for the consumer") if not rate else nullcontext():
            self._reader.drain(messages(summary))

    def _send_routed(
        self, name: str, requests: int, seed: int, rate: float | None
    ) -> TrafficSummary:
        stage = Stage(name, requests, (1.0, 1.0), seed=seed, extra=())
        self._send(stage, routing=self._out / "routing.json", rate=rate)
        return self._traffic[name]

    def _refresh(self, *options: object) -> dict[str, Any]:
        return run_for_summary(
            "training/refresh.py",
            *("--feedback", self._table, "--releases", self._out / "releases"),
            *("--repository", self._out / "served", *options),
        )

    def _judge(self, release: str, world: World) -> Judged:
        return judge(self._triton.state().grpc_url, release, world, max(500, self._requests // 2))


def messages(summary: TrafficSummary) -> int:
    """Messages that a stretch of traffic sent, of every fate; a delay is no message of its own."""
    return sum(count for fate, count in summary.sent.items() if fate != "out_of_order")


def _file_name(stage: str) -> str:
    return "-".join(re.findall(r"\w+", stage))
