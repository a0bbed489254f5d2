"""Traffic of which it is known where every message must end: made by a seed, sent in its order.

Event time is what decides, so the truth does not hang on how fast anything runs or who is killed:
every message that is meant to be timely comes less than the lateness after its own event time, in
arrival order, and every message that is meant to be late lies beyond the join window by its event
time, or is sent when its slate is seen to be in the table (``aftermath``).
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

from contracts.events import EXPOSURES, FEEDBACK, MAX_EVENT_BYTES

#: What a message is meant to be. ``oracle.py`` must come to the same by reading the topics alone.
SLATE = "slate"
COUNTS = "counts"  # timely feedback that stands in the row
REPLACED = "replaced"  # timely feedback; a later act of its kind on its item counts
DUPLICATE = "duplicate"  # the bytes of another message
LATE = "late"
ORPHAN = "orphan"  # feedback to no exposure
NOT_SHOWN = "not shown"
BAD = "bad"  # cannot be an event
UNFIT = "unfit"  # an event, but not of this table's feature spec, or under another's key
CONFLICT = "conflict"  # another list under a request id that has one
OPEN = "open"  # its slate is open when the traffic ends


@dataclass(frozen=True)
class Scripted:
    """A message to send: ``arrival`` is its place in time (ms of event time)."""

    arrival: int
    topic: str
    key: bytes | None
    value: bytes
    meant: str


@dataclass(frozen=True)
class Clock:
    """The event time of a run, in ms: where it begins, and the consumer's two settings."""

    begin: int
    join_window: int
    lateness: int
    step: int = 1000
    """Between two exposures."""

    @property
    def reach(self) -> int:
        """How long after its event time a timely message may arrive.

        Well below the lateness: where both topics are read to their end a lane's clock goes on
        with the wall, and a broker that is down holds messages back. What is left, in ms, is what
        the wall and the sender may take without making anything late.
        """
        return int(self.lateness * 0.3)


def traffic(seed: int, slates: int, clock: Clock) -> list[Scripted]:
    """Exposures and feedback of every kind, in arrival order."""
    rng = random.Random(seed)
    made: list[Scripted] = []
    for number in range(slates):
        made += _around_slate(rng, number, clock.begin + number * clock.step, clock)
        if number % 8 == 0:
            made.append(_nonsense(rng, number // 8, clock.begin + number * clock.step))
    return sorted(made, key=lambda one: one.arrival)  # stable: equal arrivals keep their order


def _around_slate(rng: random.Random, number: int, time: int, clock: Clock) -> list[Scripted]:
    request = f"r{number:06d}"
    exposure = exposure_json(rng, request, time)
    shown = [exposure["candidates"][index]["item"] for index in exposure["exposed"]]
    key = request.encode()
    made = []

    def add(arrival: int, topic: str, event: dict[str, Any], meant: str) -> Scripted:
        made.append(Scripted(arrival, topic, key, encode(event), meant))
        return made[-1]

    def act(item: str, kind: str, at: int, value: float, name: str) -> dict[str, Any]:
        return feedback_json(request, item, kind, at, value, f"{request}-{name}")

    # A tenth of the exposures comes after the feedback that people gave to them.
    hesitates = rng.random() < 0.1
    first = add(
        time + (clock.reach if hesitates else rng.randrange(clock.reach // 3)),
        EXPOSURES,
        exposure,
        SLATE,
    )
    if rng.random() < 0.1:
        again = first.arrival + rng.randrange(clock.reach)
        made.append(Scripted(again, EXPOSURES, key, first.value, DUPLICATE))
    if rng.random() < 0.04:
        again = first.arrival + rng.randrange(1, clock.reach)
        other = {**exposure, "exposed": exposure["exposed"][::-1]}
        made.append(Scripted(again, EXPOSURES, key, encode(other), CONFLICT))

    for place, item in enumerate(shown):
        if hesitates or rng.random() < 0.6:
            at = time + (
                rng.randrange(1, clock.reach // 4)
                if hesitates
                else rng.randrange(1, clock.join_window)
            )
            arrival = at + (0 if hesitates else rng.randrange(clock.reach))
            takes_back = rng.random() < 0.1
            meant = REPLACED if takes_back else COUNTS
            click = add(arrival, FEEDBACK, act(item, "click", at, 1.0, f"c{place}"), meant)
            if takes_back:  # and nothing is left of it, in whatever order the two arrive
                later = rng.randint(at, time + clock.join_window - 1)
                event = act(item, "click", later + 1, 0.0, f"d{place}")
                add(later + 1 + rng.randrange(clock.reach), FEEDBACK, event, COUNTS)
            if rng.random() < 0.15:
                again = click.arrival + rng.randrange(1, clock.reach)
                # Its own event time may be near the end of the window: stay within the lateness.
                again = min(again, at + clock.reach)
                made.append(Scripted(again, FEEDBACK, key, click.value, DUPLICATE))
        if rng.random() < 0.3:  # two amounts for one item, in either order of arrival
            times = sorted(rng.sample(range(1, clock.join_window), 2))
            for which, at in enumerate(times):
                amount = round(rng.uniform(0.5, 90.0), 3)
                meant = COUNTS if which else REPLACED
                event = act(item, "watch", time + at, amount, f"w{place}-{which}")
                add(time + at + rng.randrange(clock.reach), FEEDBACK, event, meant)
        if rng.random() < 0.08:  # beyond the window by its own time
            at = time + clock.join_window + rng.randrange(1, clock.join_window)
            add(at + 1, FEEDBACK, act(item, "click", at, 1.0, f"l{place}"), LATE)
    if rng.random() < (0.5 if hesitates else 0.05):
        hidden = [one["item"] for one in exposure["candidates"] if one["item"] not in shown]
        item = hidden[0] if rng.random() < 0.5 else "nowhere"
        at = time + rng.randrange(1, clock.reach if hesitates else clock.join_window)
        add(at + 1, FEEDBACK, act(item, "click", at, 1.0, "n"), NOT_SHOWN)
    if rng.random() < 0.06:
        other = f"x{number:06d}"
        at = time + rng.randrange(clock.join_window)
        event = feedback_json(other, shown[0], "click", at, 1.0, f"{other}-o")
        made.append(Scripted(at + 1, FEEDBACK, other.encode(), encode(event), ORPHAN))
    return made


def _nonsense(rng: random.Random, turn: int, time: int) -> Scripted:
    """One message that no slate can take, each kind in its turn."""
    request = f"b{turn:06d}"
    exposure = exposure_json(rng, request, time)
    act = feedback_json(request, "i0", "click", time, 1.0, f"{request}-b")
    a_day_ahead = time + 86_400_000
    first, *others = exposure["candidates"]
    no_number = {**first, "features": {**first["features"], "price": "dear"}}
    kinds: list[tuple[str, str, bytes]] = [
        (BAD, EXPOSURES, encode({**exposure, "version": 2})),
        (BAD, FEEDBACK, encode({**act, "version": 99})),
        (BAD, FEEDBACK, encode(act)[:-9]),
        (BAD, EXPOSURES, b"\xff\xfe not utf-8 \x00"),
        (BAD, FEEDBACK, encode({**act, "value": "one"})),
        (BAD, EXPOSURES, encode({**exposure, "exposed": [0, 0, 1]})),
        (BAD, EXPOSURES, encode(act)),
        (BAD, FEEDBACK, encode(exposure)),
        (BAD, EXPOSURES, encode({**exposure, "surprise": 1})),
        (BAD, FEEDBACK, b""),
        (BAD, FEEDBACK, b"[" * 5000),
        (BAD, EXPOSURES, encode({**exposure, "time": a_day_ahead})),
        (BAD, FEEDBACK, encode({**act, "time": a_day_ahead})),
        (BAD, EXPOSURES, encode({**exposure, "surface": "s" * MAX_EVENT_BYTES})),
        (UNFIT, EXPOSURES, encode({**exposure, "feature_spec_sha256": "0" * 64})),
        (UNFIT, EXPOSURES, encode({**exposure, "candidates": [no_number, *others]})),
        (UNFIT, FEEDBACK, encode({**act, "kind": "purchase"})),
        (UNFIT, FEEDBACK, encode({**act, "value": 7.0})),
        (UNFIT, FEEDBACK, encode({**act, "request_id": f"not-{request}"})),
    ]
    meant, topic, value = kinds[turn % len(kinds)]
    return Scripted(time, topic, request.encode(), value, meant)


def aftermath(seed: int, sent: list[Scripted], count: int) -> list[Scripted]:
    """What comes when every slate of ``sent`` is in the table: late by arrival, all of it.

    Acts inside their window by their own time, bytes that were sent before, and exposures again.
    """
    rng = random.Random(seed)
    slates = [one for one in sent if one.meant == SLATE]
    acts = [one for one in sent if one.meant == COUNTS]
    made = []
    for number in range(count):
        exposure = rng.choice(slates)
        raw = json.loads(exposure.value)
        item = raw["candidates"][raw["exposed"][0]]["item"]
        act = feedback_json(
            raw["request_id"], item, "watch", raw["time"] + 1, 5.0, f"after-{number}"
        )
        made.append(Scripted(0, FEEDBACK, exposure.key, encode(act), LATE))
        if number % 3 == 0:
            made.append(Scripted(0, EXPOSURES, exposure.key, exposure.value, LATE))
        if number % 3 == 1:
            again = rng.choice(acts)
            made.append(Scripted(0, FEEDBACK, again.key, again.value, LATE))
    return made


def pushers(partition: int, time: int, name: str) -> list[Scripted]:
    """An exposure and an act at ``time`` that move a lane's watermark; the slate stays open."""
    request = f"{name}-{partition}"
    exposure = exposure_json(random.Random(partition), request, time)
    act = feedback_json(request, "i0", "click", time, 1.0, f"{request}-c")
    return [
        Scripted(time, EXPOSURES, request.encode(), encode(exposure), OPEN),
        Scripted(time, FEEDBACK, request.encode(), encode(act), OPEN),
    ]


def exposure_json(rng: random.Random, request: str, time: int) -> dict[str, Any]:
    """An exposure of 6 candidates and 3 shown, under the spec of tests/contracts/examples.py."""
    candidates = [
        {
            "item": f"i{index}",
            "features": {
                "colour": rng.choice(["red", "blue", True, 1, None]),
                "price": round(rng.uniform(0, 100), 2),
            },
            "score": round(rng.gauss(0, 1), 4),
        }
        for index in range(6)
    ]
    exposed = rng.sample(range(1, 6), 2)
    exposed.insert(rng.randrange(3), 0)  # i0 is always shown
    return {
        "type": "exposure",
        "version": 1,
        "request_id": request,
        "user": f"u{rng.randrange(50)}",
        "time": time,
        "candidates": candidates,
        "exposed": exposed,
        "user_features": {"age": rng.randrange(18, 80)},
        "surface": "home",
        "release": "r0001",
        "arm": rng.choice(["control", "treatment"]),
        "log_prob": [round(-rng.random(), 6) for _ in exposed],
        "temperature": 0.5,
        "seed": rng.randrange(1 << 40),
    }


def feedback_json(
    request: str, item: str, kind: str, time: int, value: float, event_id: str
) -> dict[str, Any]:
    return {
        "type": "feedback",
        "version": 1,
        "event_id": event_id,
        "request_id": request,
        "item": item,
        "kind": kind,
        "value": value,
        "time": time,
    }


def encode(event: dict[str, Any]) -> bytes:
    return json.dumps(event).encode()
