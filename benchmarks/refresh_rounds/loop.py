"""The closed loop: show, collect, refresh, judge; and again with what was published."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.refresh_rounds.commands import (
    DONE,
    last_json,
    run_command,
    train_policy,
)
from benchmarks.refresh_rounds.findings import Recovery, Round, mean_interval, recovery
from benchmarks.refresh_rounds.policy_traffic import Asked, append, ask, lists_of, live_slates
from contracts.reading import write_yaml
from training.checkpoint import load_checkpoint
from training.evaluation.divergence import mean_divergence
from training.model.gen_reranker import GenReranker
from training.release.store import ReleaseStore
from training.sources.simulator import DAY_MS, START_MS
from training.sources.world import World

Floats = npt.NDArray[np.float64]

#: Streams of random numbers: of the rounds' requests, and of the requests that judge.
_ROUNDS, _JUDGE = 11, 12


@dataclass(frozen=True)
class Plan:
    """What is run.

    Attributes:
        world: at the drift that the first champion is trained in.
        drifts: of the world in each round, one for each.
        lists: slates a round; first_lists: slates that the first champion is trained on.
        judged: fresh requests that judge each round.
        temperature: of the exploration.
        settings: ``--set`` of the first training; refresh_arguments: for training/refresh.py.
    """

    world: World
    drifts: tuple[float, ...]
    lists: int
    first_lists: int
    judged: int
    temperature: float
    seed: int
    settings: tuple[str, ...]
    refresh_arguments: tuple[str, ...]


class Loop:
    """The rounds of a plan in a folder; each leaves what the next starts from."""

    def __init__(self, plan: Plan, out: Path) -> None:
        self.plan = plan
        self.out = out
        self.log = out / "commands.log"
        self.store = ReleaseStore(out / "releases")
        self._table = out / "feedback"

    def begin(self) -> None:
        """Train and publish the first champion: the anchor, which stays frozen."""
        first = self._train("first", self.plan.world, self.plan.seed + 1)
        slates, engines = self.out / "first" / "slates", self.out / "first" / "engines"
        arguments = ("--checkpoint", first, "--data", slates, "--out", engines)
        run_command(self.log, "training/export.py", *arguments)
        publish = ("--engines", engines, "--out", self.store.folder)
        run_command(self.log, "training/publish.py", *publish)
        self.frozen = self._model(self.store.champion())

    def round(self, number: int) -> Round:
        """Traffic of the champion, a refresh, and the truth; ``number`` from 1."""
        began, plan = time.monotonic(), self.plan
        world = plan.world.at(plan.drifts[number - 1])
        showing = self.store.champion()
        asked = self._ask(world, plan.lists, _ROUNDS, number)
        slates = live_slates(
            self._model(showing), asked, showing, plan.temperature, plan.seed + number
        )
        append(self._table, slates, self.frozen.spec)
        code, printed = run_command(
            self.log,
            *("training/refresh.py", "--feedback", self._table, "--releases", self.store.folder),
            *("--repository", self.out / "served", "--promote", *plan.refresh_arguments),
        )
        refusal = "" if code == DONE else str(last_json(printed).get("reason", "refused"))
        champion = self._model(self.store.champion())
        judged = self._judge(world)
        frozen, refreshed = self._gain(self.frozen, judged), self._gain(champion, judged)
        shown = np.array([slate.exposed for slate in slates], np.int64)
        return Round(
            number=number,
            drift=world.settings.drift,
            exit_code=code,
            champion=self.store.champion(),
            refusal=refusal,
            slates=len(slates),
            seconds=time.monotonic() - began,
            given=float(judged.true_clicks(judged.arrays.exposed).mean()),
            frozen=mean_interval(frozen),
            refreshed=mean_interval(refreshed),
            difference=mean_interval(refreshed - frozen),
            reference_drift=mean_divergence(champion, self.frozen, judged.arrays, plan.seed),
            explored=mean_interval(
                asked.true_clicks(shown) - asked.true_clicks(asked.arrays.exposed)
            ),
        )

    def recovered(self, with_fresh: bool) -> Recovery:
        """Loss and recovery at the drift of the last round."""
        old, new = self.plan.world, self.plan.world.at(self.plan.drifts[-1])
        before, after = self._judge(old), self._judge(new)
        fresh: Floats | None = None
        if with_fresh:
            file = self._train("fresh", new, self.plan.seed + 2)
            fresh = self._gain(load_checkpoint(file).model(), after, self._encoded_like(file, new))
        return recovery(
            self._gain(self.frozen, before),
            self._gain(self.frozen, after),
            self._gain(self._model(self.store.champion()), after),
            fresh,
        )

    def _train(self, name: str, world: World, seed: int) -> Path:
        folder = self.out / name
        folder.mkdir(parents=True, exist_ok=True)
        write_yaml(folder / "world.yaml", world.settings)
        lists, settings = self.plan.first_lists, self.plan.settings
        return train_policy(folder, folder / "world.yaml", lists, seed, settings, self.log)

    def _model(self, release: str) -> GenReranker:
        return load_checkpoint(self.store.checkpoint(release)).model()

    def _judge(self, world: World) -> Asked:
        """The same users and draws in every round, as far as the drift leaves them."""
        return self._ask(world, self.plan.judged, _JUDGE, 0)

    def _ask(self, world: World, count: int, stream: int, number: int) -> Asked:
        seed: Sequence[int] = (self.plan.seed, stream, number)
        days = self.plan.world.settings.days + number
        start = START_MS + int(days * DAY_MS)
        return ask(world, self.frozen.spec, count, seed, start, DAY_MS)

    def _encoded_like(self, file: Path, world: World) -> Asked:
        """The requests that judge, under the feature spec of another checkpoint."""
        spec, plan = load_checkpoint(file).spec, self.plan
        return ask(world, spec, plan.judged, (plan.seed, _JUDGE, 0), START_MS, DAY_MS)

    @staticmethod
    def _gain(model: GenReranker, asked: Asked, encoded: Asked | None = None) -> Floats:
        """True clicks over the given order [S]."""
        order, _ = lists_of(model, encoded or asked)
        return asked.true_clicks(order) - asked.true_clicks(asked.arrays.exposed)
