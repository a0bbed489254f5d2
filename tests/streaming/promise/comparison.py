"""What the consumer left behind, held against the truth."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from tests.streaming.promise.oracle import Place, Truth


@dataclass(frozen=True)
class DeadLetter:
    """A message of the dead-letter topic: where it came from, why, and the bytes."""

    place: Place
    reason: str
    value: bytes


@dataclass(frozen=True)
class Verdict:
    """Broken promises, in words; empty where all are kept.

    Attributes:
        repeats: dead letters beyond the first for one message. They are allowed: a member that is
            killed after it sent one and before it committed cannot know.
    """

    broken: tuple[str, ...]
    repeats: int

    def __str__(self) -> str:
        more = len(self.broken) - 40
        lines = [*self.broken[:40], *([f"and {more} more"] if more > 0 else [])]
        return f"{len(self.broken)} broken promises:\n" + "\n".join(lines)


def compare(
    truth: Truth,
    rows: list[dict[str, Any]],
    letters: list[DeadLetter],
    reasons: dict[str, set[str]],
) -> Verdict:
    """Hold a table and a dead-letter topic against the truth.

    Args:
        reasons: for each kind of wrong message the reasons that may be given for it.
    """
    return Verdict(
        broken=tuple(_rows(truth, rows) + _letters(truth, letters, reasons)),
        repeats=len(letters) - len({letter.place for letter in letters}),
    )


def _rows(truth: Truth, rows: list[dict[str, Any]]) -> list[str]:
    broken = []
    times = Counter(row["request_id"] for row in rows)
    broken += [f"slate {name}: missing" for name in sorted(set(truth.rows) - set(times))]
    broken += [f"slate {name}: {n} rows" for name, n in sorted(times.items()) if n > 1]
    for row in rows:
        name = row["request_id"]
        if name not in truth.rows:
            broken.append(f"slate {name}: nobody sent it, or it is still open")
            continue
        due = truth.rows[name]
        for column in sorted(set(due) | set(row)):
            if column not in due or column not in row or due[column] != row[column]:
                got, wanted = row.get(column, "no such column"), due.get(column, "no such column")
                broken.append(f"slate {name}: {column} is {got!r}, must be {wanted!r}")
    return broken


def _letters(truth: Truth, letters: list[DeadLetter], reasons: dict[str, set[str]]) -> list[str]:
    broken = []
    found = {letter.place for letter in letters}
    for place, fate in sorted(truth.dead.items()):
        if place not in found:
            broken.append(f"{_at(place)}: {fate}, and no dead letter: lost")
    for letter in letters:
        fate = truth.fates.get(letter.place)
        where = f"dead letter of {_at(letter.place)} ({letter.reason})"
        if fate is None:
            broken.append(f"{where}: nothing was sent there")
        elif letter.place not in truth.dead:
            broken.append(f"{where}: that message is {fate}, no dead letter")
        elif letter.value != truth.values[letter.place]:
            broken.append(f"{where}: not the bytes that were sent")
        elif letter.reason not in reasons[fate]:
            broken.append(f"{where}: that message is {fate}")
    return broken


def _at(place: Place) -> str:
    topic, partition, offset = place
    return f"{topic}[{partition}]@{offset}"
