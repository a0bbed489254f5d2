"""When an experiment had which weights, and why it ended: ``history/NAME.json`` below the
manifests, kept in git.

The statistics need it: a unit's arm is compared with the weights of the time it was first seen.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from contracts.reading import Strict, read_json
from deploy.analysis.status import Stage
from deploy.rolling.changes import to_json
from training.release.durable import write_durably


class Ending(Strict, kw_only=True, frozen=True):
    """When (ms since the epoch) an experiment ended, and why."""

    at: int
    reason: str


class History(Strict, kw_only=True, frozen=True):
    """``stages``: oldest first; their times never fall, whatever the clock did.

    ``ended`` is null while it runs.
    """

    version: Literal[1] = 1
    stages: tuple[Stage, ...] = ()
    ended: Ending | None = None


def history_path(experiments: Path, name: str) -> Path:
    return experiments / "history" / f"{name}.json"


def read_stages(experiments: Path, name: str) -> tuple[Stage, ...]:
    """The stages of an experiment, oldest first; none where it never ran.

    Raises:
        ContractError: the file is damaged.
    """
    return read_history(experiments, name).stages


def read_history(experiments: Path, name: str) -> History:
    """As ``read_stages``, with the end."""
    path = history_path(experiments, name)
    return read_json(path, History) if path.exists() else History()


def add_stage(experiments: Path, name: str, since: int, weights: Mapping[str, float]) -> None:
    """Note that weights are in force since a time (ms); idempotent."""
    before = read_history(experiments, name)
    stages = before.stages
    if stages and stages[-1].weights == weights and before.ended is None:
        return
    if stages:
        since = max(since, stages[-1].since)  # the clock was set back
    _write(experiments, name, History(stages=(*stages, Stage(since=since, weights=dict(weights)))))


def note_end(experiments: Path, name: str, reason: str) -> None:
    """Note that it ends now, and why; idempotent."""
    history = read_history(experiments, name)
    if history.ended is None:
        ended = Ending(at=round(time.time() * 1000), reason=reason)
        _write(experiments, name, msgspec.structs.replace(history, ended=ended))


def _write(experiments: Path, name: str, history: History) -> None:
    path = history_path(experiments, name)
    path.parent.mkdir(exist_ok=True)
    write_durably(path, to_json(history))
