"""A change of what is served, and the journal that lets it be finished after a kill.

A change touches up to three things: routing.json, the record of champions, manifests. It is written
down beside routing.json first (``.routing.json.change``), made, and the note removed. So a kill
leaves it not begun, or to be finished by whoever comes next; every part can be made twice.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import msgspec

from contracts.experiments import Experiment
from contracts.reading import ContractError, Strict, read_json
from contracts.routing import Routing
from training.release.durable import write_durably

Command = Literal["start", "ramp", "promote", "rollback"]


class ChampionMove(Strict, kw_only=True, frozen=True):
    """The champion becomes another.

    Attributes:
        before: the champion until then; where the record names a third one, it is left alone.
        back: taken back by a rollback, rather than named.
    """

    to: str
    before: str | None
    back: bool = False
    reason: str = ""


class ManifestEdit(Strict, kw_only=True, frozen=True):
    """What changes in an experiment's manifest; it can be made twice.

    Attributes:
        started: null leaves it as it is.
        weights: by arm; those that are not named stay.
        since: a stage of these weights begins (ms since the epoch); null where none does.
        reason: why it ends; kept with the history.
    """

    name: str
    state: Literal["running", "stopped"]
    started: str | None = None
    weights: dict[str, float] = msgspec.field(default_factory=dict)
    since: int | None = None
    reason: str = ""


class Change(Strict, kw_only=True, frozen=True):
    """What a command does, whole.

    Attributes:
        name: the experiment; "" where the champion alone changes.
        routing: what clients are to read; null leaves routing.json as it is.
        stage: "switch" until all three are made; "retire" while a rollback of the champion waits to
            unload, so that the same command, run again after a kill, does not go back twice.
    """

    version: Literal[1] = 1
    command: Command
    name: str = ""
    routing: Routing | None = None
    champion: ChampionMove | None = None
    edits: tuple[ManifestEdit, ...] = ()
    stage: Literal["switch", "retire"] = "switch"

    @property
    def is_nothing(self) -> bool:
        return self.routing is None and self.champion is None and not self.edits


def pending(routing: Path) -> Change | None:
    """The change that was begun and not finished, if any.

    Raises:
        ContractError: the journal is damaged; the message says what to do.
    """
    path = journal_path(routing)
    if not path.exists():
        return None
    try:
        return read_json(path, Change)
    except ContractError as error:
        raise ContractError(
            f"the note of an unfinished change is damaged ({error}); look at `status`, set the "
            "manifests and the champion as they should be, then delete that file"
        ) from error


def note(routing: Path, change: Change) -> None:
    """Write a change down before it is made. Hold the ``switch`` lock."""
    write_durably(journal_path(routing), to_json(change))


def forget(routing: Path) -> None:
    """The change is finished. Hold the ``switch`` lock.

    Not made durable: if a power cut brings the note back, making its change again changes nothing,
    and the next change is written over it.
    """
    path = journal_path(routing)
    path.with_name(f".{path.name}.new").unlink(missing_ok=True)  # a kill in `note` left it
    path.unlink(missing_ok=True)


def journal_path(routing: Path) -> Path:
    return routing.with_name(f".{routing.name}.change")


def to_json(value: Strict) -> bytes:
    """The same bytes for the same content, for people to read."""
    plain = msgspec.to_builtins(value)
    return (json.dumps(plain, indent=2, ensure_ascii=False) + "\n").encode()


def running(experiment: Experiment, edit: ManifestEdit) -> Experiment:
    """The experiment as an edit leaves it.

    Raises:
        ValueError: the weights do not sum to 1, or exceed a ceiling.
    """
    arms = tuple(
        msgspec.structs.replace(arm, weight=edit.weights.get(arm.name, arm.weight))
        for arm in experiment.arms
    )
    started = edit.started or experiment.started
    return msgspec.structs.replace(experiment, state=edit.state, started=started, arms=arms)
