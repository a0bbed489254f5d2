"""Where every message must end, worked out in the plainest way from the topics as they are.

A batch join over complete logs, with no code of the product: nothing here streams, forgets or
recovers. It knows the rules of docs/streaming.md alone: a slate takes the feedback whose event time
lies in its join window, the latest act of a kind on an item counts, an event id counts once, and a
slate is closed when the watermark is more than the lateness past its window.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from tests.streaming.promise.traffic import (
    BAD,
    CONFLICT,
    COUNTS,
    DUPLICATE,
    LATE,
    NOT_SHOWN,
    OPEN,
    ORPHAN,
    REPLACED,
    SLATE,
    UNFIT,
)

EXPOSURES, FEEDBACK = "gref.exposures", "gref.feedback"

#: Where a message lies: topic, partition, offset.
Place = tuple[str, int, int]

_EXPOSURE_TYPES: dict[str, Any] = {
    "request_id": str, "user": str, "time": int, "candidates": list, "exposed": list,
}  # fmt: skip
_EXPOSURE_MORE = {
    "type", "version", "user_features", "surface", "release", "arm", "fallback", "log_prob",
    "temperature", "seed", "feature_spec_sha256",
}  # fmt: skip
_FEEDBACK_TYPES: dict[str, Any] = {
    "event_id": str, "request_id": str, "item": str, "kind": str, "value": (int, float),
    "time": int,
}  # fmt: skip


@dataclass(frozen=True)
class Message:
    """A message as the broker keeps it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes

    @property
    def place(self) -> Place:
        return self.topic, self.partition, self.offset


@dataclass(frozen=True)
class Rules:
    """What the consumer was told, in ms; times from ``future`` on are no event's."""

    join_window: int
    lateness: int
    future: int


#: Kinds of feedback of the spec of tests/contracts/examples.py: which are 0 or 1.
_BINARY = {"click": True, "watch": False}


@dataclass
class Truth:
    """The rows that the table must hold, and the fate of each message."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    fates: dict[Place, str] = field(default_factory=dict)
    values: dict[Place, bytes] = field(default_factory=dict)

    def places(self, *fates: str) -> set[Place]:
        return {place for place, fate in self.fates.items() if fate in fates}

    @property
    def dead(self) -> dict[Place, str]:
        """Messages that must be dead letters, and what is wrong with them."""
        wrong = (BAD, UNFIT, CONFLICT, LATE, ORPHAN, NOT_SHOWN)
        return {place: fate for place, fate in self.fates.items() if fate in wrong}


def judge(
    messages: list[Message], rules: Rules, closed_at: dict[tuple[str, int], int] | None = None
) -> Truth:
    """The truth about complete logs.

    Args:
        messages: all of both topics.
        closed_at: for each topic and partition the offset from which on messages were sent when
            every slate of the messages before it (and not open at the end) was in the table.
    """
    truth = Truth(values={message.place: message.value for message in messages})
    for partition in sorted({message.partition for message in messages}):
        lane = sorted(
            (message for message in messages if message.partition == partition),
            key=lambda message: message.offset,
        )
        _judge_lane(lane, rules, closed_at or {}, truth)
    return truth


def _judge_lane(
    lane: list[Message], rules: Rules, closed_at: dict[tuple[str, int], int], truth: Truth
) -> None:
    exposures = _readable(lane, EXPOSURES, rules, truth)
    acts = _readable(lane, FEEDBACK, rules, truth)
    watermark = min(newest(exposures), newest(acts)) - rules.lateness

    def after(message: Message) -> bool:
        return message.offset >= closed_at.get((message.topic, message.partition), 1 << 62)

    slates: dict[str, dict[str, Any]] = {}
    for message, event in exposures:
        request = event["request_id"]
        if after(message):
            truth.fates[message.place] = LATE
        elif request in slates:
            same = event == slates[request]
            truth.fates[message.place] = DUPLICATE if same else CONFLICT
        else:
            slates[request] = event
            is_open = event["time"] + rules.join_window + rules.lateness >= watermark
            truth.fates[message.place] = OPEN if is_open else SLATE
            if not is_open:
                truth.rows[request] = row_of(event)

    known: set[tuple[str, str]] = set()
    best: dict[tuple[str, str, str], tuple[Message, dict[str, Any]]] = {}
    for message, event in acts:
        request, item, place = event["request_id"], event["item"], message.place
        slate = slates.get(request)
        if after(message):
            truth.fates[place] = LATE
        elif slate is None:
            is_open = event["time"] + rules.lateness >= watermark
            truth.fates[place] = OPEN if is_open else ORPHAN
        elif request not in truth.rows:
            truth.fates[place] = OPEN
        elif item not in shown(slate):
            truth.fates[place] = NOT_SHOWN
        elif event["time"] > slate["time"] + rules.join_window:
            truth.fates[place] = LATE
        elif (request, event["event_id"]) in known:
            truth.fates[place] = DUPLICATE
        else:
            known.add((request, event["event_id"]))
            truth.fates[place] = COUNTS
            name = (request, item, event["kind"])
            if name not in best:
                best[name] = (message, event)
            else:
                older, newer = sorted([best[name], (message, event)], key=lambda one: _rank(one[1]))
                truth.fates[older[0].place] = REPLACED
                best[name] = newer

    for (request, item, kind), (_, event) in best.items():
        position = shown(slates[request]).index(item)
        if event["value"] == 0 and _BINARY[kind]:
            continue  # it takes back what came before
        truth.rows[request][f"feedback__{kind}"][position] = float(event["value"])
        truth.rows[request][f"feedback_time__{kind}"][position] = event["time"]


def _readable(
    lane: list[Message], topic: str, rules: Rules, truth: Truth
) -> list[tuple[Message, dict[str, Any]]]:
    """The events of a topic in the order of their offsets; the others are BAD or UNFIT."""
    found = []
    for message in lane:
        if message.topic == topic:
            event = event_of(message, rules)
            if event is None:
                truth.fates[message.place] = BAD
            elif not fits(message, event):
                truth.fates[message.place] = UNFIT
            else:
                found.append((message, event))
    return found


def event_of(message: Message, rules: Rules) -> dict[str, Any] | None:
    """The event in a message, or None where it is none."""
    if len(message.value) > 1 << 20:
        return None
    try:
        event = json.loads(message.value)
    except (ValueError, RecursionError):
        return None
    is_exposure = message.topic == EXPOSURES
    types = _EXPOSURE_TYPES if is_exposure else _FEEDBACK_TYPES
    more = _EXPOSURE_MORE if is_exposure else {"type", "version"}
    if (
        not isinstance(event, dict)
        or event.get("type") != ("exposure" if is_exposure else "feedback")
        or event.get("version", 1) != 1
        or not set(types) <= set(event) <= set(types) | more
        or not all(isinstance(event[name], kind) for name, kind in types.items())
        or not 0 <= event["time"] < rules.future
    ):
        return None
    if is_exposure and (
        len(set(event["exposed"])) != len(event["exposed"]) or len(event.get("surface", "")) > 256
    ):
        return None
    return event if is_exposure or math.isfinite(event["value"]) else None


def fits(message: Message, event: dict[str, Any]) -> bool:
    """Whether an event is one for this table, and where it should be."""
    if (message.key or b"").decode() != event["request_id"]:
        return False
    if message.topic == EXPOSURES:
        prices = [one["features"].get("price") for one in event["candidates"]]
        return "feature_spec_sha256" not in event and not any(isinstance(p, str) for p in prices)
    binary = _BINARY.get(event["kind"])
    return binary is not None and (event["value"] in (0, 1) if binary else event["value"] >= 0)


def newest(events: list[tuple[Message, dict[str, Any]]]) -> int:
    """The newest event time; -1 where there is none."""
    return max((event["time"] for _, event in events), default=-1)


def shown(exposure: dict[str, Any]) -> list[str]:
    return [exposure["candidates"][index]["item"] for index in exposure["exposed"]]


def row_of(exposure: dict[str, Any]) -> dict[str, Any]:
    """The row of an exposure without feedback, under the spec of tests/contracts/examples.py."""

    def text(value: Any) -> str | None:
        if isinstance(value, bool):
            return "true" if value else "false"
        return None if value is None else str(value)

    def number(value: Any) -> float | None:
        return None if value is None else float(value)

    nothing = len(exposure["exposed"])
    features = [candidate["features"] for candidate in exposure["candidates"]]
    seconds = exposure["time"] / 1000
    return {
        "request_id": exposure["request_id"],
        "user": exposure["user"],
        "time": exposure["time"],
        "surface": exposure.get("surface", ""),
        "release": exposure.get("release", ""),
        "arm": exposure.get("arm", ""),
        "fallback": exposure.get("fallback", ""),
        "candidates": [candidate["item"] for candidate in exposure["candidates"]],
        "scores": [number(candidate.get("score")) for candidate in exposure["candidates"]],
        "exposed": exposure["exposed"],
        "log_prob": exposure.get("log_prob"),
        "temperature": exposure.get("temperature", 0.0),
        "seed": exposure.get("seed", 0),
        "user__age": number(exposure["user_features"].get("age")),
        "item__colour": [text(one.get("colour")) for one in features],
        "item__price": [number(one.get("price")) for one in features],
        "feedback__click": [None] * nothing,
        "feedback_time__click": [None] * nothing,
        "feedback__watch": [None] * nothing,
        "feedback_time__watch": [None] * nothing,
        "day": datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d"),
    }


def _rank(event: dict[str, Any]) -> tuple[int, str, float]:
    return event["time"], event["event_id"], event["value"]
