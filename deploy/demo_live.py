"""The demo's second half: live traffic, tastes that move, a refresh, and one that is refused.

    users -> Triton (r0001) -> broker -> consumer -> table -> refresh -> r0002 -> Triton

The release loses as tastes move; the refresh, from what its own traffic brought, wins back; and
feedback of bots, well-formed as it is, changes nothing: its refresh is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.datasets import Dataset
from contracts.reading import read_json, write_yaml
from deploy.demo_commands import console, run, run_for_summary
from deploy.demo_consumer import Consumer, consumer
from deploy.demo_truth import Judged, judge
from deploy.local_broker import LocalBroker
from deploy.local_triton import LocalTriton
from streaming.traffic.tally import TrafficSummary
from training.evaluate import world_of
from training.sources.world import World

#: Exploration of live traffic: without it no log can tell what another policy would have got.
TEMPERATURE = 0.5
#: Faults of an ordinary day; each has a known fate (streaming/traffic/faults.py).
FAULTS = ("--late", "0.01", "--duplicate", "0.02", "--malformed", "0.005", "--out-of-order", "0.05")


@dataclass(frozen=True)
class Stage:
    """A stretch of the demo's traffic.

    Attributes:
        drift: from and to; ago, span: its event time, in hours before now.
    """

    name: str
    requests: int
    drift: tuple[float, float]
    ago_h: float
    span_h: float
    seed: int
    extra: tuple[str, ...] = FAULTS


@dataclass(frozen=True)
class Live:
    """What happened.

    Attributes:
        traffic: of each stage, by its name.
        refreshed, poisoned: summaries of the two refreshes.
        judged: true clicks on the same fresh requests, by release, and "before" for the first
            release in the world that it was trained in; simulated, exact.
        rows, dead_letters: what the consumer wrote.
    """

    traffic: dict[str, TrafficSummary]
    refreshed: dict[str, Any]
    poisoned: dict[str, Any]
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
        self._traffic: dict[str, TrafficSummary] = {}

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
            features, table = self._slates / "features.yaml", out / "feedback"
            with consumer(broker.address, table, features, out / "consumer.log") as reader:
                for stage in (
                    Stage("tastes move", n // 3, (0.0, 1.0), ago_h=14, span_h=4, seed=11),
                    Stage("they have moved", n, (1.0, 1.0), ago_h=6, span_h=8, seed=12),
                ):
                    self._send(stage, broker.address, reader)
                run("streaming/table.py", "validate", table)
                refreshed = self._refresh()
                if refreshed["outcome"] == "published":
                    name = refreshed["release"]
                    console.print(f"loading {name} beside r0001; clients ask by name")
                    self._triton.load(out / "releases" / name)
                    judged[name] = self._judge(name, moved)
                after = Stage("after the refresh", n // 3, (1.0, 1.0), ago_h=4, span_h=2, seed=13)
                self._send(after, broker.address, reader)
                bots = Stage(
                    *("bots", n // 2, (1.0, 1.0)),
                    ago_h=0,
                    span_h=4,
                    seed=14,
                    extra=("--poison", "bots"),
                )
                self._send(bots, broker.address, reader)
                poisoned = self._refresh()
                rows, dead = reader.count("rows"), reader.count("dead_letters")
        run("training/releases.py", "list", "--releases", out / "releases")
        return Live(
            traffic=self._traffic,
            refreshed=refreshed,
            poisoned=poisoned,
            judged=judged,
            rows=int(rows),
            dead_letters=int(dead),
        )

    def _send(self, stage: Stage, brokers: str, reader: Consumer) -> None:
        """One stretch of traffic by the command, on the champion, and wait for the table."""
        file = self._out / "traffic" / f"{stage.name.replace(' ', '-')}.json"
        run(
            "streaming/simulate.py",
            *("--url", self._triton.state().grpc_url, "--releases", self._out / "releases"),
            *("--brokers", brokers, "--world", self._out / "world.yaml"),
            *("--requests", stage.requests, "--drift", f"{stage.drift[0]:g}..{stage.drift[1]:g}"),
            *("--span", f"{stage.span_h:g}h", "--ago", f"{stage.ago_h:g}h", "--seed", stage.seed),
            *("--explore-temperature", TEMPERATURE, "--deadline-ms", 5000, *stage.extra),
            *("--spool", self._out / "spool", "--out", file),
        )
        summary = read_json(file, TrafficSummary)
        self._traffic[stage.name] = summary
        with console.status("waiting for the consumer"):
            reader.drain(messages(summary))

    def _refresh(self) -> dict[str, Any]:
        return run_for_summary(
            "training/refresh.py",
            *("--feedback", self._out / "feedback", "--releases", self._out / "releases"),
            *("--repository", self._out / "served", "--promote"),
        )

    def _judge(self, release: str, world: World) -> Judged:
        return judge(self._triton.state().grpc_url, release, world, max(500, self._requests // 2))


def messages(summary: TrafficSummary) -> int:
    """Messages that a stretch of traffic sent, of every fate; a delay is no message of its own."""
    return sum(count for fate, count in summary.sent.items() if fate != "out_of_order")
