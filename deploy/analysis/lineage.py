"""The releases that the arms serve, and what each was refreshed from."""

from __future__ import annotations

from pathlib import Path

from contracts.experiments import CHAMPION, Experiment
from contracts.reading import ContractError
from deploy.analysis.status import Ancestor
from training.release.store import ReleaseStore


def champion_of(store: Path | None) -> str | None:
    """The champion of a folder of releases; None without a folder or without a champion."""
    if store is None:
        return None
    try:
        return ReleaseStore(store).record().release
    except ContractError:
        return None


def release_of(release: str, champion: str | None) -> str:
    """What an arm serves: its release, or the champion's where that is known."""
    return champion if release == CHAMPION and champion is not None else release


def lineage_of(experiment: Experiment, store: Path, champion: str | None) -> tuple[Ancestor, ...]:
    """The arms' releases and all that they came from, the youngest first.

    A release that the folder has not is left out: the arm's status names it.
    """
    serving: dict[str, list[str]] = {}
    for arm in experiment.arms:
        serving.setdefault(release_of(arm.release, champion), []).append(arm.name)
    steps: dict[str, Ancestor] = {}
    for release in serving:
        try:
            found = ReleaseStore(store).lineage(release)
        except ContractError:
            continue
        for step in found:
            steps[step.name] = Ancestor(
                release=step.name,
                parent=step.parent,
                created=step.manifest.created if step.manifest else "",
                arms=tuple(serving.get(step.name, ())),
                is_champion=step.name == champion,
            )
    return tuple(steps[name] for name in sorted(steps, key=lambda one: int(one[1:]), reverse=True))
