"""Making a change: routing.json first, for that is what users feel; then what is written down."""

from __future__ import annotations

from pathlib import Path

import msgspec

from contracts.champion import ChampionFile
from contracts.experiments import read_experiment
from contracts.reading import ContractError
from contracts.routing import Routing
from deploy.rolling.changes import (
    ChampionMove,
    Change,
    ManifestEdit,
    forget,
    note,
    pending,
    running,
    to_json,
)
from deploy.rolling.history import add_stage, note_end
from deploy.rolling.manifest_edit import Place, edit
from deploy.rolling.situation import Places, read_record
from training.release.durable import write_durably
from training.release.release_names import PublishError

UNDO_FILE = "undo.json"


class HalfMadeError(ContractError):
    """Clients read the new routing, but the record or a manifest could not follow yet."""


def switch(places: Places, change: Change, keep_note: bool = False) -> list[str]:
    """Make a change, whole. Hold the ``switch`` lock.

    A kill leaves it not begun, or noted for ``finish``.

    Args:
        keep_note: leave the note, in stage "retire".

    Returns:
        What a person should know: a champion that somebody else changed meanwhile, a manifest that
        somebody deleted.

    Raises:
        HalfMadeError: see there; the note stays, and any command tries again.
    """
    note(places.routing, change)
    return finish(places, change, keep_note)


def finish(places: Places, change: Change, keep_note: bool = False) -> list[str]:
    """Make what a noted change has left to make; idempotent. As ``switch``."""
    told: list[str] = []
    if change.routing is not None:
        write_routing(places.routing, change.routing)
    try:
        if change.champion is not None:
            told += _move_champion(places, change.champion)
        if change.champion is not None or change.routing is not None:
            write_undo(places)  # also where the record was changed by hand, and clients follow now
        for one in change.edits:
            told += _edit_manifest(places, one)
    except (ContractError, PublishError, OSError) as error:
        raise HalfMadeError(
            f"clients read the new routing ({places.routing}), but: {error}; mend it, then run "
            "the command again"
        ) from error
    if keep_note:
        note(places.routing, msgspec.structs.replace(change, stage="retire"))
    else:
        forget(places.routing)
    return told


def finish_pending(places: Places) -> Change | None:
    """Finish what was interrupted, if anything; returns it. Hold the ``switch`` lock."""
    change = pending(places.routing)
    if change is None or change.stage == "retire":
        return None
    finish(places, change)
    return change


def write_routing(path: Path, routing: Routing) -> None:
    """Replace the file that clients read, in one rename, unless it says so already."""
    content = to_json(routing)
    if not path.exists() or path.read_bytes() != content:
        write_durably(path, content)


def write_undo(places: Places) -> None:
    """``undo.json`` beside the routing: what a server that starts loads, too, for a rollback."""
    record = read_record(places.store)
    if record is not None:
        write_routing(places.routing.with_name(UNDO_FILE), undo_of(record))


def undo_of(record: ChampionFile) -> Routing:
    """A routing of the champion that a rollback takes back; of the champion where there is none."""
    earlier = [name for name in record.earlier if name != record.release]
    return Routing(champion=earlier[0] if earlier else record.release)


def _move_champion(places: Places, move: ChampionMove) -> list[str]:
    record = read_record(places.store)
    if record is not None and record.release == move.to:
        return []
    if move.back:
        # Further back than one is several rollbacks; a kill may have come between two.
        while record is not None and move.to in record.earlier and record.release != move.to:
            places.store.roll_back(move.reason)
            record = read_record(places.store)
    elif (record.release if record else None) == move.before:
        places.store.set_champion(move.to, move.reason)
        record = read_record(places.store)
    if record is not None and record.release == move.to:
        return []
    return [
        f"clients read that {move.to} is the champion, and the record of champions says "
        f"{record.release if record else 'none'}; settle it: python deploy/rollout.py promote rNNNN"
    ]


def _edit_manifest(places: Places, one: ManifestEdit) -> list[str]:
    path = places.manifest(one.name)
    if not path.exists() and path.parent.is_dir():  # else no command could ever be finished again
        return [f"{path} is gone; it would say that {one.name} is {one.state}"]
    experiment = read_experiment(path)
    after = running(experiment, one)
    if after != experiment:
        changes: dict[Place, str | float | None] = {("state",): one.state}
        if one.started:
            changes["started",] = one.started
        for arm, weight in one.weights.items():
            changes["arms", ("name", arm), "weight"] = weight
        text = edit(path.read_text(encoding="utf-8"), changes)
        write_durably(path, text.encode())
        assert read_experiment(path) == after
    if one.since is not None:
        add_stage(places.experiments, one.name, one.since, one.weights)
    if one.state == "stopped":
        note_end(places.experiments, one.name, one.reason)
    return []
