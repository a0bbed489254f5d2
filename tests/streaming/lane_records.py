"""Events as Kafka records, and a lane that is driven by hand."""

from __future__ import annotations

from typing import Any, NamedTuple

from contracts.events import (
    Event,
    Exposure,
    FeedbackEvent,
    decode_exposure,
    encode_event,
    slate_of,
)
from contracts.slates import Candidate, Slate
from streaming.consumer.intake import Intake
from streaming.consumer.lane import Lane
from streaming.consumer.open_slates import OpenSlate
from tests.contracts.examples import spec

WINDOW, LATENESS, SKEW = 100, 20, 1_000
#: The wall clock of tests: far beyond the events' times.
NOW = 1_000_000
SPEC = spec()


class Record(NamedTuple):
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int = 0
    timestamp_type: int = 0


def exposure(request_id: str, time: int, items: int = 3, **fields: Any) -> Exposure:
    candidates = tuple(
        Candidate(item=f"i{index}", features={"price": 1.5, "colour": "red"})
        for index in range(items)
    )
    shown = tuple(reversed(range(max(1, items - 1))))  # the first candidate is not shown last
    given = {"user": "u", "candidates": candidates, "exposed": shown, **fields}
    return Exposure(request_id=request_id, time=time, **given)


def act(request_id: str, time: int, event_id: str, **fields: Any) -> FeedbackEvent:
    given = {"item": "i0", "kind": "click", "value": 1.0, **fields}
    return FeedbackEvent(request_id=request_id, time=time, event_id=event_id, **given)


def record(offset: int, event: Event | bytes, key: bytes | None = b"q") -> Record:
    if isinstance(event, bytes):
        return Record(offset, key, event)
    return Record(offset, event.request_id.encode(), encode_event(event))


def lane(committed: Any = None) -> Lane:
    return Lane(0, Intake(SPEC, SKEW), WINDOW, LATENESS, committed)


def slate_of_closed(closed: OpenSlate) -> Slate:
    """The slate by the contract's own functions; of binary kinds, 0 leaves nothing."""
    kept = (one for one in closed.counting() if one.value or one.kind != "click")
    return slate_of(decode_exposure(closed.value), kept)
