"""The demo's rollouts: an experiment that wins and is promoted, and one that a guardrail ends.

    r0002 at 10 % -> 50 % of the users -> looks until the always-valid interval decides -> promoted
    r0003, a broken export, at 20 %    -> watch finds the broken guardrail           -> rolled back

Traffic runs on the wall clock here: an experiment's weights are in force when they are, and no
clock can be turned back for them.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from contracts.experiment_metrics import Guardrail, Metric, StoppingRule
from contracts.experiments import Arm, Experiment, read_experiment
from contracts.reading import write_yaml
from deploy.analysis.experiment_status import read_status
from deploy.analysis.status import ExperimentStatus
from deploy.demonstration.commands import REFUSED, console, run
from deploy.demonstration.spoiled import publish_spoiled
from deploy.report_page.page import write_page
from deploy.rolling.history import read_stages
from streaming.traffic.tally import TrafficSummary

CLICKS = Metric(name="clicks_per_list", kind="click")
LIKES = Metric(name="likes_per_list", kind="like")
#: Looks at most: an always-valid interval may be looked at as often as one likes.
LOOKS = 6
#: On one machine all clients follow a change of weights within 0.1 s.
SETTLE_S = 2.0
#: Requests a second while the broken release serves: slow enough for the table and the watch to
#: keep up, for it is their pace that is shown.
RATE = 50.0
#: A watch that has found nothing by then has missed it.
WATCH_S = 300.0


@dataclass(frozen=True)
class Rollouts:
    """What happened.

    Attributes:
        won: the last status of the experiment that was promoted, or was not shown to win.
        promoted: whether it was.
        harmed: the status of the broken release when it was rolled back.
        rolled_back: whether the watch did so by itself.
        page: the report of the first experiment.
        traffic: of each stretch, by its name.
        truth: the relative lift of the first experiment's release in true clicks; simulated, exact.
    """

    won: ExperimentStatus
    promoted: bool
    harmed: ExperimentStatus
    rolled_back: bool
    page: Path
    traffic: dict[str, TrafficSummary]
    truth: float


class Rollout:
    """Runs both experiments by the commands that an operator would run."""

    def __init__(
        self,
        out: Path,
        requests: int,
        send: Callable[[str, int, int, float | None], TrafficSummary],
    ) -> None:
        """Make it.

        Args:
            out: folder of the demo: releases, feedback, stack, slates.
            requests: of a long stretch of traffic.
            send: sends a stretch (name, requests, seed, rate) along the routing, and waits until
                its slates are in the table; quietly, where it has a rate and so goes on beside
                something else.
        """
        self._out, self._requests, self._send = out, requests, send
        self._manifests, self._table = out / "experiments", out / "feedback"
        self._traffic: dict[str, TrafficSummary] = {}

    @property
    def routing(self) -> Path:
        """The file that clients follow."""
        return self._out / "routing.json"

    def run(self, refreshed: str, truth: float) -> Rollouts:
        """Promote ``refreshed`` if it wins; then let a broken release be found.

        Args:
            truth: relative lift of the refreshed release in true clicks, for the report.
        """
        self._manifests.mkdir(parents=True, exist_ok=True)
        self._command("promote", "r0001", "--reason", "the first release")
        self._start("refreshed", refreshed, 0.1)
        self._users("at 10 %", self._requests // 2, 21)
        self._command("ramp", "refreshed", "--to", "0.5")
        for look in range(LOOKS):
            self._users(f"at 50 %, look {look + 1}", self._requests // 2, 31 + look)
            won = self._status("refreshed")
            console.print(f"[bold]{won.verdict}[/bold]: {won.words[0]}")
            if won.verdict != "wait":
                break
        page = self._out / "experiment.html"
        write_page(won, page, truth={"refreshed": truth})
        self._command("status", "refreshed", *self._read)
        promoted = won.verdict == "ship"
        if promoted:
            self._command("promote", "refreshed", "--reason", won.words[0])
        rolled_back = self._mistake(refreshed)
        harmed = self._status("mistake")
        return Rollouts(won, promoted, harmed, rolled_back, page, self._traffic, truth)

    def _mistake(self, base: str) -> bool:
        """Give a broken release to a fifth of the users; whether the watch rolled it back."""
        self._start("mistake", publish_spoiled(self._out, base), 0.2)
        with ThreadPoolExecutor(1) as users:
            sent = users.submit(self._users, "the mistake", self._requests, 41, RATE)
            words = ("mistake", *self._read, "--every", "5s")
            code = self._command("watch", *words, may_refuse=True, timeout_s=WATCH_S)
            with console.status("the users go on, on the champion"):
                sent.result()
        return code == REFUSED

    def _start(self, name: str, release: str, weight: float) -> None:
        path = self._manifests / f"{name}.yaml"
        write_yaml(path, _manifest(name, release, weight))
        console.print(f"manifest: {path}")
        self._command("start", name)

    def _users(self, name: str, requests: int, seed: int, rate: float | None = None) -> None:
        self._traffic[name] = self._send(name, requests, seed, rate)

    @property
    def _read(self) -> tuple[object, ...]:
        return ("--table", self._table, "--settle", f"{SETTLE_S:g}s")

    def _status(self, name: str) -> ExperimentStatus:
        return read_status(
            read_experiment(self._manifests / f"{name}.yaml"),
            str(self._table),
            stages=read_stages(self._manifests, name),
            releases=self._out / "releases",
            settle_ms=round(SETTLE_S * 1000),
        )

    def _command(
        self, verb: str, *words: object, may_refuse: bool = False, timeout_s: float | None = None
    ) -> int:
        return run(
            "deploy/rollout.py",
            *(verb, *words),
            *("--experiments", self._manifests, "--releases", self._out / "releases"),
            *("--routing", self.routing, "--home", self._out / "stack"),
            *(() if verb == "status" else ("--drain", "2")),
            may_refuse=may_refuse,
            timeout_s=timeout_s,
        )


def _manifest(name: str, release: str, weight: float) -> Experiment:
    return Experiment(
        name=name,
        description=f"{release} against the champion (simulated users)",
        salt=f"demo-{name}",
        arms=(
            Arm(name="control", release="champion", weight=1 - weight),
            Arm(name=name, release=release, weight=weight),
        ),
        primary=CLICKS,
        secondary=(LIKES,),
        guardrails=(
            Guardrail(metric=CLICKS, limit=0.02),
            Guardrail(metric="fallback_share", limit=0.01),
        ),
        stopping=StoppingRule(min_units=100, mde=0.05),
    )
