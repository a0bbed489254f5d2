"""What a refresh is asked, and what it reads before it begins: its exact input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from training.refreshing.champion import Champion, check_spec, open_champion
from training.refreshing.scope import Scope, identity_of, scope_of
from training.refreshing.settings import RefreshSettings
from training.refreshing.work import Work
from training.release.store import ReleaseStore
from training.sources.feedback_table import FeedbackTable

WORK = ".refresh"


@dataclass(frozen=True)
class Request:
    """What to refresh; see the command's options."""

    feedback: str
    releases: Path
    repository: Path
    work: Path | None = None
    since: int | None = None
    until: int | None = None
    promote: bool = False
    storage_options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Input:
    """The exact input of a refresh."""

    champion: Champion
    table: FeedbackTable
    scope: Scope | None
    identity: str | None


def read_input(
    request: Request, settings: RefreshSettings, on_step: Callable[[str], None]
) -> Input:
    """Champion, table and range of versions, checked against one another."""
    on_step("champion")
    champion = open_champion(ReleaseStore(request.releases))
    on_step("table")
    table = FeedbackTable(request.feedback, request.storage_options)
    check_spec(champion, table)
    scope = scope_of(champion, table, request.since, request.until)
    identity = None if scope is None else identity_of(champion, scope, settings)
    return Input(champion, table, scope, identity)


def work_of(request: Request, given: Input) -> Work:
    """The work folder of an input."""
    assert given.identity is not None
    return Work(request.work or request.releases / WORK, given.identity)
