"""Runs a plan: one training after the other, each result stored before the next begins."""

from __future__ import annotations

import errno
import fcntl
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import msgspec
import numpy as np

from contracts.datasets import read_dataset
from contracts.reading import ContractError
from training.command import Refused
from training.comparison.cases import slates_of, whole_of
from training.comparison.gref import Gref, untrained
from training.comparison.jobs import Job, Known, Plan, seconds_left
from training.comparison.judging import held_out_score, lists_of
from training.comparison.measuring import case_lists, latency, machine, measure
from training.comparison.store import Row, Store
from training.comparison.system import Slates
from training.data.arrays import SlateArrays, load_slates

#: What one training may raise without ending the others.
FAILURES = (ContractError, ValueError, FloatingPointError, RuntimeError, OSError)
#: What a full disk says, one's own share of it, and the longest file that a process may write.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: How long to wait for other processes that hold all that is left.
_WAIT_SECONDS = 5.0


@dataclass
class Runner:
    """Works on a plan until it is done, or its time is up.

    Attributes:
        work: folder of slates and of trainings under way; may be removed at any time.
        minutes: no training begins after so many; 0: no limit.
        stale: whether results of an earlier state of the code count as done.
        say: told a line at a time.
    """

    plan: Plan
    store: Store
    work: Path
    kuairand: Path | None = None
    minutes: float = 0.0
    stale: bool = False
    say: Callable[[str], None] = print
    failed: dict[str, str] = field(default_factory=dict)

    def run_or_refuse(self, report: Callable[[], None]) -> None:
        """Run, and ``report`` what is stored, all or not.

        Raises:
            Refused: something is left: trainings failed, or the time was up.
        """
        done = self.run()
        report()
        if not done:
            left = "; ".join(self.failed.values()) or "the time was up"
            raise Refused(f"not all is done: {left}. The same command goes on")

    def run(self) -> bool:
        """Whether all of the plan is stored now. What failed is in ``failed``, and said."""
        started = time.monotonic()
        while True:
            known = Known(self.store.rows(), self.stale)
            ready = [job for job in self.plan.ready(known) if job.key() not in self.failed]
            if not ready:
                return not self.failed
            if self.minutes and time.monotonic() - started > 60 * self.minutes:
                self.say(f"time is up: {len(self.plan.left(known))} trainings are left")
                return False
            if not any(self._try(job) for job in ready):
                time.sleep(_WAIT_SECONDS)

    def _try(self, job: Job) -> bool:
        """Do the job, unless another process is at it; whether it was done here."""
        with _claim(self.work / "jobs" / f"{job.key()}.lock") as ours:
            if not ours:
                return False
            rows = self.store.rows()
            known = Known(rows, self.stale)
            if known.find(job) is not None:
                return True
            self.say(f"{_bar(self.plan, known, list(rows.values()))} {job}")
            try:
                self._do(job)
            except FAILURES as error:
                if isinstance(error, OSError) and error.errno in _FULL:
                    raise  # whatever comes next would end like this
                self.failed[job.key()] = f"{job}: {error}"
                self.say(f"failed: {job}: {error}")
            return True

    def _do(self, job: Job) -> None:
        folder = self.work / "jobs" / job.key()
        shutil.rmtree(folder, ignore_errors=True)  # of one that was killed
        shuffled = job.control == "shuffled"
        full = whole_of(job.case)
        slates = slates_in(
            slates_of(job.case, self.work, self.kuairand, shuffled),
            full and slates_of(full, self.work, self.kuairand),
        )
        tests = case_lists(slates.test)
        # Hours of training are not for results that the store would refuse.
        self.store.has_case(job.case.name, job.case.identity(), tests)
        began = time.process_time()
        trained = job.system.fit(slates, job.settings, job.seed, folder)
        seconds = time.process_time() - began + trained.saved_seconds
        row = Row(
            case=job.case.name,
            method=job.system.name,
            seed=job.seed,
            role=job.role,
            control=job.control,
            trial=job.trial,
            trials=job.trials,
            settings=job.plain,
            data=job.case.identity(),
            code=job.code,
            epoch=trained.fitted.epochs,
            alarm=trained.alarm,
            scalars=trained.scalars,
            cpu_seconds=round(seconds, 2),
            parameters=trained.fitted.parameters,
            machine=machine(),
        )
        if job.role == "trial":
            score = held_out_score(lists_of(trained.fitted, slates.judged), slates, job.case)
            self.store.add(msgspec.structs.replace(row, held_out=score))
        else:
            reference = untrained(slates.test, Gref.defaults(job.case))
            ms, ratio = latency(trained.fitted, reference, slates.test)
            found = measure(trained.fitted, slates)
            whole = msgspec.structs.replace(
                row,
                latency_ms=ms,
                latency_ratio=ratio,
                lists=len(slates.test),
                users=found.users,
                metrics=found.metrics,
            )
            self.store.add(whole, found.lists, tests)
        shutil.rmtree(folder, ignore_errors=True)


@lru_cache(maxsize=1)
def slates_in(folder: Path, whole: Path | None = None) -> Slates:
    """A prepared folder as arrays; the last one is kept.

    Args:
        whole: the same lists with the feedback of every candidate, to judge by.
    """
    spec = read_dataset(folder)[1]
    train = load_slates(folder / "train", spec)
    valid, test = (load_slates(folder / split, spec, like=train) for split in ("valid", "test"))
    if whole is None:
        return Slates(folder, train, valid, valid, test)
    judged, test = (
        with_feedback_of(one, load_slates(whole / split, read_dataset(whole)[1]))
        for one, split in ((valid, "valid"), (test, "test"))
    )
    return Slates(folder, train, valid, judged, test)


def with_feedback_of(slates: SlateArrays, whole: SlateArrays) -> SlateArrays:
    """Slates with the exposures and the feedback of the same requests in ``whole``.

    Raises:
        ContractError: other requests, or other candidates.
    """
    same = np.array_equal(slates.request_id, whole.request_id)
    if not same or not np.array_equal(slates.items, whole.items):
        raise ContractError("the slates with all feedback are not of the same requests")
    nothing = np.full(whole.exposed.shape, np.nan)
    return replace(slates, exposed=whole.exposed, feedback=whole.feedback, log_prob=nothing)


@contextmanager
def _claim(file: Path) -> Iterator[bool]:
    """Hold a job; the kernel lets go of it when the process dies, however it dies."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _bar(plan: Plan, known: Known, rows: list[Row], width: int = 20) -> str:
    """How far the plan is, and how long the rest takes on one core like those before."""
    left, size = plan.left(known), plan.size()
    done = size - len(left)
    full = int(width * done / max(1, size))
    seconds = seconds_left(left, rows)
    rest = "no estimate yet" if seconds is None else f"about {_clock(seconds)} of one core left"
    return f"[{'#' * full}{'.' * (width - full)}] {done}/{size}, {rest};"


def _clock(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
