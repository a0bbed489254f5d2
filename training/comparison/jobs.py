"""What is to be trained: trials first, then the settings found, with each seed.

A plan is a pure function of what is stored, so that a run that was killed goes on, and two
processes with the same command share the work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any, Literal

import msgspec

from contracts.reading import Strict
from training.comparison.cases import Case
from training.comparison.code_state import code_state
from training.comparison.judging import JUDGE_CODE
from training.comparison.store import Row, key_of
from training.comparison.system import System

#: The seed of all trials; that of final runs is another.
TRIAL_SEED = 0


def plain(settings: Strict) -> dict[str, Any]:
    """Settings as a row has them; the seed has a column of its own."""
    values: dict[str, Any] = msgspec.to_builtins(settings)
    return {name: value for name, value in values.items() if name != "seed"}


@dataclass(frozen=True)
class Job:
    """One training."""

    case: Case
    system: System
    role: Literal["trial", "final"]
    control: Literal["none", "shuffled"]
    seed: int
    trial: int
    trials: int
    settings: Strict

    @property
    def plain(self) -> dict[str, Any]:
        return plain(self.settings)

    @property
    def code(self) -> str:
        """State of what the row depends on; a trial's score also on what judges it."""
        own = code_state(self.system.code)
        return f"{own}+{code_state(JUDGE_CODE)}" if self.role == "trial" else own

    def key(self, code: str | None = None) -> str:
        """Of the row that it will give; ``code`` "" is that of any state of the code."""
        found = self.code if code is None else code
        return key_of(
            self.case.name,
            self.system.name,
            self.seed,
            self.role,
            self.control,
            self.plain,
            self.case.identity(),
            found,
        )

    def __str__(self) -> str:
        what = f"trial {self.trial + 1}/{self.trials}" if self.role == "trial" else "final"
        shuffled = ", shuffled feedback" if self.control == "shuffled" else ""
        return f"{self.case.name} {self.system.name}: {what}, seed {self.seed}{shuffled}"


class Known:
    """Stored rows, found by job.

    Args:
        stale: whether rows of an earlier state of the code count.
    """

    def __init__(self, rows: Mapping[str, Row], stale: bool) -> None:
        self._rows = dict(rows)
        if stale:
            for row in rows.values():
                self._rows[msgspec.structs.replace(row, code="").key] = row
        self._stale = stale

    def find(self, job: Job) -> Row | None:
        row = self._rows.get(job.key())
        return self._rows.get(job.key("")) if row is None and self._stale else row


@dataclass(frozen=True)
class Plan:
    """Everything that a command asks for."""

    cases: Sequence[Case]
    systems: Sequence[System]
    seeds: Sequence[int]
    trials: int
    control_seeds: Sequence[int]

    def ready(self, known: Known) -> list[Job]:
        """Jobs that can start now, in order: final ones only where all trials are there."""
        found: list[Job] = []
        for case, system in self._pairs():
            tries, missing = self._trials(case, system, known)
            found += missing or [
                job for job in self._finals(case, system, tries, known) if not known.find(job)
            ]
        return found

    def size(self) -> int:
        """Trainings in all."""
        return sum(
            self._tried(case, system) + len(self._wanted(system)) for case, system in self._pairs()
        )

    def left(self, known: Known) -> list[tuple[str, str]]:
        """Case and method of every training that is not there yet."""
        names: list[tuple[str, str]] = []
        for case, system in self._pairs():
            tries, missing = self._trials(case, system, known)
            number = len(missing)
            if missing:
                number += len(self._wanted(system))
            else:
                finals = self._finals(case, system, tries, known)
                number += sum(known.find(job) is None for job in finals)
            names += [(case.name, system.name)] * number
        return names

    def _pairs(self) -> list[tuple[Case, System]]:
        return [(c, s) for c in self.cases for s in self.systems if s.fits(c)]

    def _tried(self, case: Case, system: System) -> int:
        settings = system.trials(case, self.trials)
        return len(settings) if len(settings) > 1 else 0

    def _trials(
        self, case: Case, system: System, known: Known
    ) -> tuple[list[tuple[Job, Row | None]], list[Job]]:
        """Every trial with its row, and those that are missing; one setting needs no trial."""
        settings = system.trials(case, self.trials)
        jobs = [
            Job(case, system, "trial", "none", TRIAL_SEED, number, len(settings), one)
            for number, one in enumerate(settings)
        ]
        if len(jobs) == 1:
            return [(jobs[0], None)], []
        pairs = [(job, known.find(job)) for job in jobs]
        return pairs, [job for job, row in pairs if row is None]

    def _finals(
        self, case: Case, system: System, tries: list[tuple[Job, Row | None]], known: Known
    ) -> list[Job]:
        best = choose(tries)
        return [
            Job(case, system, "final", control, seed, best.trial, best.trials, best.settings)
            for control, seed in self._wanted(system)
        ]

    def _wanted(self, system: System) -> list[tuple[Literal["none", "shuffled"], int]]:
        """Control and seed of the final runs."""
        found: list[tuple[Literal["none", "shuffled"], int]] = [("none", s) for s in self.seeds]
        if system.learns:
            found += [("shuffled", seed) for seed in self.control_seeds]
        return found


def choose(tries: Sequence[tuple[Job, Row | None]]) -> Job:
    """The trial with the best score on held-out logs; the first of equal ones."""

    def score(one: tuple[Job, Row | None]) -> float:
        row = one[1]
        return float("-inf") if row is None or row.held_out is None else row.held_out

    return max(tries, key=score)[0]


def seconds_left(left: Sequence[tuple[str, str]], rows: Sequence[Row]) -> float | None:
    """Processor seconds of the trainings that are left, by those of their like; None: unknown."""
    if not rows:
        return None
    both: dict[tuple[str, str], list[float]] = {}
    method: dict[str, list[float]] = {}
    for row in rows:
        both.setdefault((row.case, row.method), []).append(row.cpu_seconds)
        method.setdefault(row.method, []).append(row.cpu_seconds)
    others = mean(row.cpu_seconds for row in rows)

    def expected(case: str, name: str) -> float:
        seen = both.get((case, name)) or method.get(name)
        return median(seen) if seen else others

    return sum(expected(case, name) for case, name in left)
