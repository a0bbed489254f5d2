"""What a command would do, without a lock, a file or a load."""

from __future__ import annotations

from contracts.champion import ChampionChange, ChampionFile
from contracts.experiments import Experiment
from deploy.rolling.changes import Change, pending, running
from deploy.rolling.loading import loaded_in_vain
from deploy.rolling.replicas import Fleet, ReplicaError
from deploy.rolling.rollouts import described
from deploy.rolling.situation import Places, Situation


def preview(
    places: Places, fleet: Fleet, now: Situation, change: Change, keep: int, load: bool
) -> list[str]:
    """What would be said and done, a line each.

    Args:
        load: whether the command loads what is missing; a rollback of an experiment does not.
    """
    lines = []
    if (unfinished := pending(places.routing)) is not None and unfinished.stage == "switch":
        lines.append(f"would first finish what was interrupted: {described(unfinished)}")
    after = change.routing or now.base()
    loaded = fleet.loaded()
    for address, names in loaded.items():
        if isinstance(names, ReplicaError):
            lines.append(f"{names}: {'would be refused' if load else 'would go on without'}")
            continue
        for release in after.releases if load else ():
            if release not in names:
                there = (places.store.folder / release).is_dir()
                lines.append(
                    f"would load {release} on {address}"
                    if there
                    else f"would be refused: {places.store.folder} has no {release}"
                )
    lines.append(f"would switch: {described(change)}")
    record = _record_after(now, change)
    if record is not None:
        experiments = _experiments_after(now, change)
        for address, names in loaded_in_vain(loaded, after, record, experiments, keep).items():
            lines += [f"would unload {name} on {address}, after draining" for name in names]
    return lines


def _record_after(now: Situation, change: Change) -> ChampionFile | None:
    move = change.champion
    if move is None:
        return now.record
    past = now.record.changes if now.record else ()
    new = ChampionChange(release=move.to, time="", reason=move.reason, rollback=move.back)
    return ChampionFile(changes=(*past, new))


def _experiments_after(now: Situation, change: Change) -> list[Experiment]:
    edits = {one.name: one for one in change.edits}
    return [
        running(one, edits[name]) if name in edits else one for name, one in now.experiments.items()
    ]
