"""Events on Kafka: what was shown (exposure) and what people did (feedback).

Both are JSON with ``type`` and ``version``, keyed by ``request_id``, so that partition k of either
topic holds the same requests. ``contracts/schemas/events.v1.json`` is their JSON Schema, for
producers in other languages. A field that is not in the schema is an error: what would be dropped
in silence today is what somebody looks for tomorrow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Literal, TypeVar, Union

import msgspec

from contracts.features import MAX_CANDIDATES, MAX_LIST
from contracts.reading import ContractError, Strict
from contracts.slates import Candidate, Feedback, Scalar, Slate

EXPOSURES, FEEDBACK, DEAD_LETTERS = "gref.exposures", "gref.feedback", "gref.dead-letters"

#: Larger messages are dead letters unread: 512 candidates with long features need far less.
MAX_EVENT_BYTES = 1 << 20

#: Times are ms since the epoch; ids are what the ranking server calls things.
MAX_ID = 256
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID)]
Time = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
Name = Annotated[str, msgspec.Meta(max_length=256)]
Index = Annotated[int, msgspec.Meta(ge=0, lt=MAX_CANDIDATES)]
Int64 = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]


class Exposure(Strict, kw_only=True, frozen=True, tag_field="type", tag="exposure"):
    """A list was shown: a slate without its feedback (fields as in ``contracts.slates.Slate``).

    Attributes:
        candidates: each item once; feedback names items.
        exposed: the shown candidates by index, from 0, in the order of exposure.
        log_prob: natural log-probability of each exposed choice; null where no policy chose.
        temperature, seed: exploration settings of the decode; temperature 0 is greedy.
        fallback: why the given order was shown in place of the release's list; "" if it was not.
        feature_spec_sha256: the spec under which the features were encoded; "" if unknown.
    """

    version: Literal[1] = 1
    request_id: Id
    user: Id
    time: Time
    candidates: Annotated[tuple[Candidate, ...], msgspec.Meta(max_length=MAX_CANDIDATES)]
    exposed: Annotated[tuple[Index, ...], msgspec.Meta(min_length=1, max_length=MAX_LIST)]
    user_features: dict[str, Scalar] = msgspec.field(default_factory=dict)
    surface: Name = ""
    release: Name = ""
    arm: Name = ""
    fallback: Name = ""
    log_prob: Annotated[tuple[float, ...], msgspec.Meta(max_length=MAX_LIST)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    seed: Int64 = 0
    feature_spec_sha256: Name = ""

    def __post_init__(self) -> None:
        m = len(self.candidates)
        if not self.exposed:
            raise ValueError("exposed is empty; a list that shows nothing is no exposure")
        if len(set(self.exposed)) != len(self.exposed):
            raise ValueError("exposed names a candidate twice")
        if not 0 <= min(self.exposed) <= max(self.exposed) < m:
            raise ValueError(f"exposed holds an index outside 0 to {m - 1}")
        if len({candidate.item for candidate in self.candidates}) != m:
            raise ValueError("candidates hold an item twice; feedback could not be told apart")
        if not all(0 < len(candidate.item) <= MAX_ID for candidate in self.candidates):
            raise ValueError(
                f"an item's id is empty or longer than {MAX_ID}; no feedback could name it"
            )
        if self.log_prob is not None and len(self.log_prob) != len(self.exposed):
            raise ValueError("log_prob and exposed differ in length")


class FeedbackEvent(Strict, kw_only=True, frozen=True, tag_field="type", tag="feedback"):
    """A user did something with a shown item.

    Attributes:
        event_id: names the act; the same act sent twice has the same id and counts once.
        value: 1 for a binary kind (0 takes it back), else the amount. Of several acts of one kind
            on one item the latest counts (``latest``).
    """

    version: Literal[1] = 1
    event_id: Id
    request_id: Id
    item: Id
    kind: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    value: float
    time: Time

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"value is {self.value}; allowed: finite")


Event = Union[Exposure, FeedbackEvent]

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)  # of both: a decoder of one would not ask for the type
_EventT = TypeVar("_EventT", Exposure, FeedbackEvent)


def encode_event(event: Event) -> bytes:
    """The event as UTF-8 JSON; raises ContractError where it is larger than MAX_EVENT_BYTES."""
    raw = _encoder.encode(event)
    if len(raw) > MAX_EVENT_BYTES:
        raise ContractError(
            f"event of request {event.request_id[:64]}: {len(raw):,} bytes; allowed: "
            f"{MAX_EVENT_BYTES:,}; send fewer or shorter features"
        )
    return raw


def decode_exposure(raw: bytes) -> Exposure:
    """An exposure from JSON; raises ContractError that names the field and the cause."""
    return _decode(Exposure, raw)


def decode_feedback(raw: bytes) -> FeedbackEvent:
    """A feedback event from JSON; raises ContractError that names the field and the cause."""
    return _decode(FeedbackEvent, raw)


def _decode(kind: type[_EventT], raw: bytes) -> _EventT:
    if len(raw) > MAX_EVENT_BYTES:
        raise ContractError(f"{len(raw):,} bytes; allowed: {MAX_EVENT_BYTES:,}")
    try:
        event = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ContractError(f"not a valid event: {error}") from error
    if not isinstance(event, kind):
        names = [one.__struct_config__.tag for one in (type(event), kind)]
        raise ContractError(f"type is {names[0]}; allowed on this topic: {names[1]}")
    return event


def latest(one: FeedbackEvent, other: FeedbackEvent) -> FeedbackEvent:
    """Which of two acts of one kind on one item counts: the later, whatever order they came in."""
    return max(one, other, key=lambda event: (event.time, event.event_id, event.value))


def slate_of(exposure: Exposure, feedback: Iterable[FeedbackEvent] = ()) -> Slate:
    """The slate of an exposure and its feedback: at most one event for each item and kind.

    Feedback on items that were not shown must have been sorted out before.
    """
    place = {exposure.candidates[index].item: at for at, index in enumerate(exposure.exposed)}
    return Slate(
        request_id=exposure.request_id,
        user=exposure.user,
        time=exposure.time,
        candidates=exposure.candidates,
        exposed=exposure.exposed,
        user_features=exposure.user_features,
        surface=exposure.surface,
        release=exposure.release,
        arm=exposure.arm,
        fallback=exposure.fallback,
        log_prob=exposure.log_prob,
        temperature=exposure.temperature,
        seed=exposure.seed,
        feedback=tuple(
            Feedback(position=place[one.item], kind=one.kind, value=one.value, time=one.time)
            for one in sorted(feedback, key=lambda one: (place[one.item], one.kind))
        ),
    )
