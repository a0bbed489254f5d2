"""Reading and changing ``champion.json``. Whoever changes it holds the publishers' lock."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from contracts.champion import CHAMPION_FILE, ChampionChange, ChampionFile
from contracts.reading import ContractError, read_json
from training.release.catalog import release_names, verify
from training.release.durable import write_durably
from training.release.release_names import PublishError, publisher_lock

COMMAND = "python training/releases.py"


def read_record(releases: Path) -> ChampionFile:
    """The record of champions.

    Raises:
        ContractError: it is missing or damaged; the message says what to do.
    """
    path = releases / CHAMPION_FILE
    try:
        return read_json(path, ChampionFile)
    except ContractError as error:
        if path.exists():
            raise ContractError(
                f"the record of champions is damaged ({error}); put back a copy of the file, or "
                f"name the champion anew: {command(releases, 'champion rNNNN --reason ...')}"
            ) from error
    names = release_names(releases)
    if not names:
        raise ContractError(
            f"{releases}: no champion, for there is no release; publish one (training/publish.py), "
            "and the first becomes the champion"
        )
    raise ContractError(
        f"{releases}: no champion; name one: {command(releases, f'champion {names[-1]}')}"
    )


def command(releases: Path, words: str) -> str:
    """A line that a person can run."""
    folder = "" if str(releases) == "releases" else f" --releases {releases}"
    return f"{COMMAND} {words}{folder}"


@contextmanager
def changing(releases: Path, wait_s: float) -> Iterator[int]:
    """Hold the store; what the disk refuses becomes a PublishError that says what to do."""
    if not releases.is_dir():
        raise ContractError(f"{releases}: no such folder of releases")
    try:
        with publisher_lock(releases, wait_s) as lock:
            yield lock
    except OSError as error:
        raise PublishError(
            f"{releases}: cannot be changed: {error}; make room or give write access, "
            "then run the command again"
        ) from error


def set_champion(releases: Path, name: str, reason: str, expected: str | None = None) -> bool:
    """Make a release the champion, verified first. Hold the lock.

    Returns:
        False where it already was, or the champion is no longer the ``expected`` one.

    A damaged record is kept beside the new one, as ``champion.json.damaged-<time>``: its history
    may be of use, but it must not stand in the way of naming a champion.
    """
    verify(releases, name)
    path = releases / CHAMPION_FILE
    past: tuple[ChampionChange, ...] = ()
    if path.exists():
        try:
            record = read_json(path, ChampionFile)
        except ContractError:
            kept = path.with_name(f"{CHAMPION_FILE}.damaged-{_now().replace(':', '')}")
            write_durably(kept, path.read_bytes())
        else:
            if record.release == name or (expected and record.release != expected):
                return False
            past = record.changes
    _write(releases, past, ChampionChange(release=name, time=_now(), reason=reason))
    return True


def roll_back(releases: Path, reason: str) -> ChampionChange:
    """Take back the nearest earlier champion that is whole. Hold the lock.

    Raises:
        ContractError: there is none.
    """
    record = read_record(releases)
    skipped: list[str] = []
    for name in record.earlier:
        if name == record.release:
            continue  # it was champion before, too; what stood between has just been passed over
        try:
            verify(releases, name)
        except ContractError as error:
            skipped.append(f"passed over {name}: {error}")
            continue
        why = "; ".join(filter(None, [reason, *skipped]))
        change = ChampionChange(release=name, time=_now(), reason=why, rollback=True)
        _write(releases, record.changes, change)
        return change
    told = "".join(f"; {one}" for one in skipped)
    raise ContractError(
        f"{releases}: there is no champion to go back to from {record.release}{told}; "
        f"name one: {command(releases, 'champion rNNNN')}"
    )


def _write(releases: Path, past: tuple[ChampionChange, ...], change: ChampionChange) -> None:
    plain = msgspec.to_builtins(ChampionFile(changes=(*past, change)))
    text = json.dumps(plain, indent=2, ensure_ascii=False) + "\n"
    write_durably(releases / CHAMPION_FILE, text.encode())


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
