"""Stages of an experiment: the times between changes of its weights."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

import numpy as np
import numpy.typing as npt

from contracts.experiments import Experiment
from contracts.reading import ContractError
from deploy.analysis.status import Stage
from deploy.analysis.units import Ints

#: Lists of this long after a change of weights are left out, for some were decided before it.
#: Clients follow their file within 0.1 s, but Kubernetes takes up to a minute to bring it.
SETTLE_MS = 60_000


def to_ms(text: str) -> int:
    """ISO 8601 with a zone -> ms since the epoch."""
    when = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return round(when.astimezone(timezone.utc).timestamp() * 1000)


def stages_of(experiment: Experiment, known: Sequence[Stage] | None) -> tuple[Stage, ...]:
    """The stages, oldest first: those that are known, or one of today's weights since the start.

    Raises:
        ContractError: a stage has other arms than the experiment, weights that do not sum to 1,
            or is earlier than the one before (of two at one time the first is empty).
    """
    if experiment.started is None:
        return ()
    names = [arm.name for arm in experiment.arms]
    if not known:
        weights = {arm.name: arm.weight for arm in experiment.arms}
        return (Stage(since=to_ms(experiment.started), weights=weights),)
    for number, stage in enumerate(known):
        where = f"{experiment.name}: stage {number + 1}"
        if set(stage.weights) != set(names):
            raise ContractError(
                f"{where}: has arms {', '.join(stage.weights)}; allowed: {', '.join(names)}"
            )
        if min(stage.weights.values()) < 0 or abs(sum(stage.weights.values()) - 1) > 1e-6:
            raise ContractError(
                f"{where}: weights sum to {sum(stage.weights.values()):g}; "
                "allowed: 1, none negative"
            )
        if number and stage.since < known[number - 1].since:
            raise ContractError(f"{where}: is earlier than the one before; allowed: in order")
    return tuple(known)


def weights_of(stages: Sequence[Stage], arms: Sequence[str]) -> npt.NDArray[np.float64]:
    """Weights as an array [stages, arms]."""
    return np.array([[stage.weights[arm] for arm in arms] for stage in stages], np.float64)


def stage_at(
    stages: Sequence[Stage], time: Ints, settle_ms: int = SETTLE_MS
) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Which stage a time is in [L], -1 before the first; and whether clients still settle [L].

    They do after every change of weights, but not after the start: nobody was in the experiment.
    """
    since = np.array([stage.since for stage in stages], np.int64)
    stage = np.searchsorted(since, time, side="right") - 1
    settling = (stage > 0) & (time < since[np.maximum(stage, 0)] + settle_ms)
    return stage.astype(np.int64), settling
