"""When an experiment had which weights: ``history/NAME.json`` below the manifests, kept in git.

The statistics need it: a unit's arm is compared with the weights of the time it was first seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from contracts.reading import Strict, read_json
from deploy.analysis.status import Stage
from deploy.rolling.changes import to_json
from training.release.durable import write_durably


class History(Strict, kw_only=True, frozen=True):
    """``stages``: oldest first; their times never fall, whatever the clock did."""

    version: Literal[1] = 1
    stages: tuple[Stage, ...] = ()


def history_path(experiments: Path, name: str) -> Path:
    return experiments / "history" / f"{name}.json"


def read_stages(experiments: Path, name: str) -> tuple[Stage, ...]:
    """The stages of an experiment, oldest first; none where it never ran.

    Raises:
        ContractError: the file is damaged.
    """
    path = history_path(experiments, name)
    return read_json(path, History).stages if path.exists() else ()


def add_stage(experiments: Path, name: str, since: int, weights: Mapping[str, float]) -> None:
    """Note that weights are in force since a time (ms); idempotent."""
    stages = read_stages(experiments, name)
    if stages and stages[-1].weights == weights:
        return
    if stages:
        since = max(since, stages[-1].since)  # the clock was set back
    path = history_path(experiments, name)
    path.parent.mkdir(exist_ok=True)
    history = History(stages=(*stages, Stage(since=since, weights=dict(weights))))
    write_durably(path, to_json(history))
