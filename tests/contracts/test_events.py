"""Events: what comes back as it was sent, what is refused, and which of several acts counts."""

from __future__ import annotations

import json
from functools import reduce
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.events import (
    MAX_EVENT_BYTES,
    Exposure,
    FeedbackEvent,
    decode_exposure,
    decode_feedback,
    encode_event,
    latest,
    slate_of,
)
from contracts.reading import ContractError
from contracts.slates import Candidate, Slate
from tests.contracts.made_events import exposure, exposures, feedback, feedback_events, ids


@given(exposures())
def test_exposure_round_trip(event: Exposure) -> None:
    raw = encode_event(event)
    assert decode_exposure(raw) == event
    assert json.loads(raw)["type"] == "exposure"
    assert json.loads(raw)["version"] == 1


@given(feedback_events())
def test_feedback_round_trip(event: FeedbackEvent) -> None:
    raw = encode_event(event)
    assert decode_feedback(raw) == event
    assert json.loads(raw)["type"] == "feedback"


def plain(event: Any) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(encode_event(event))
    return decoded


BAD_EXPOSURES = {
    "unknown version": ({"version": 2}, r"enum value 2.*version"),
    "version as text": ({"version": "1"}, "version"),
    "feedback as exposure": ({"type": "feedback"}, "unknown field"),
    "unknown field": ({"colour": "red"}, "unknown field `colour`"),
    "number for an id": ({"request_id": 7}, "request_id"),
    "empty id": ({"request_id": ""}, "length >= 1.*request_id"),
    "long id": ({"user": "u" * 257}, "length <= 256.*user"),
    "text for a time": ({"time": "now"}, r"\$\.time"),
    "fraction for a time": ({"time": 1.5}, r"\$\.time"),
    "negative time": ({"time": -1}, r"\$\.time"),
    "time beyond 2^53": ({"time": (1 << 53) + 1}, r"\$\.time"),
    "nothing shown": ({"exposed": []}, "length >= 1.*exposed"),
    "shown twice": ({"exposed": [1, 1]}, "exposed names a candidate twice"),
    "index out of range": ({"exposed": [0, 3]}, "outside 0 to 2"),
    "negative index": ({"exposed": [-1]}, "exposed"),
    "index as text": ({"exposed": ["0"]}, "exposed"),
    "no candidates": ({"candidates": []}, "outside 0 to -1"),
    "duplicate items": (
        {"candidates": [{"item": "a"}, {"item": "b"}, {"item": "a"}]},
        "an item twice",
    ),
    "item without a name": (
        {"candidates": [{"item": "a"}, {"item": ""}, {"item": "c"}]},
        "empty or longer than 256",
    ),
    "513 candidates": (
        {"candidates": [{"item": str(n)} for n in range(513)]},
        "length <= 512.*candidates",
    ),
    "65 shown": (
        {"candidates": [{"item": str(n)} for n in range(70)], "exposed": list(range(65))},
        "length <= 64.*exposed",
    ),
    "list for a feature": (
        {"candidates": [{"item": c, "features": {"x": [1]}} for c in "abc"]},
        "features",
    ),
    "misspelt candidate": ({"candidates": [{"itm": c} for c in "abc"]}, "itm|item"),
    "log_prob too short": ({"log_prob": [-1.0]}, "log_prob and exposed differ in length"),
    "null among log_prob": ({"log_prob": [-1.0, None, -1.0]}, "log_prob"),
    "negative temperature": ({"temperature": -0.5}, "temperature"),
    "seed beyond 64 bits": ({"seed": 1 << 63}, "seed"),
}


@pytest.mark.parametrize("name", BAD_EXPOSURES)
def test_bad_exposure_is_refused_by_name(name: str) -> None:
    change, message = BAD_EXPOSURES[name]
    raw = json.dumps({**plain(exposure()), **change}).encode()
    with pytest.raises(ContractError, match=message):
        decode_exposure(raw)


@pytest.mark.parametrize("field", ["request_id", "user", "time", "candidates", "exposed", "type"])
def test_exposure_without_a_required_field(field: str) -> None:
    content = plain(exposure())
    del content[field]
    with pytest.raises(ContractError, match=field):
        decode_exposure(json.dumps(content).encode())


BAD_FEEDBACK = {
    "unknown version": ({"version": 99}, "version"),
    "exposure as feedback": ({"type": "exposure"}, "unknown field"),
    "unknown field": ({"positon": 2}, "unknown field `positon`"),
    "text for a value": ({"value": "1"}, r"\$\.value"),
    "true for a value": ({"value": True}, r"\$\.value"),
    "null for a value": ({"value": None}, r"\$\.value"),
    "empty event id": ({"event_id": ""}, "event_id"),
    "kind too long": ({"kind": "k" * 65}, "kind"),
    "item as a number": ({"item": 5}, "item"),
}


@pytest.mark.parametrize("name", BAD_FEEDBACK)
def test_bad_feedback_is_refused_by_name(name: str) -> None:
    change, message = BAD_FEEDBACK[name]
    raw = json.dumps({**plain(feedback()), **change}).encode()
    with pytest.raises(ContractError, match=message):
        decode_feedback(raw)


def test_an_event_on_the_other_topic() -> None:
    with pytest.raises(ContractError, match="type is feedback; allowed on this topic: exposure"):
        decode_exposure(encode_event(feedback()))
    with pytest.raises(ContractError, match="type is exposure; allowed on this topic: feedback"):
        decode_feedback(encode_event(exposure()))


BAD_BYTES = {
    "empty": b"",
    "cut off": encode_event(feedback())[:-5],
    "two at once": encode_event(feedback()) * 2,
    "no object": b"[1, 2]",
    "null": b"null",
    "NaN": encode_event(feedback()).replace(b"1.0", b"NaN"),
    "infinity": encode_event(feedback()).replace(b"1.0", b"1e999"),
    "a number of 400 digits": encode_event(feedback()).replace(b"1.0", b"1" * 400),
    "not UTF-8": encode_event(feedback()).replace(b"click", b"cl\xffck"),
    "UTF-16": encode_event(feedback()).decode().encode("utf-16"),
    "a lone surrogate": encode_event(feedback()).replace(b"click", b"\\ud800"),
    "a deep well": b'{"value":' + b"[" * 100_000,
    "huge": encode_event(feedback()) + b" " * MAX_EVENT_BYTES,
}


@pytest.mark.parametrize("name", BAD_BYTES)
def test_bytes_that_are_no_event(name: str) -> None:
    for decode in (decode_feedback, decode_exposure):
        with pytest.raises(ContractError):
            decode(BAD_BYTES[name])


@given(st.binary(max_size=60))
def test_any_bytes_are_an_event_or_a_contract_error(raw: bytes) -> None:
    for decode in (decode_feedback, decode_exposure):
        with pytest.raises(ContractError):
            decode(raw)


@given(feedback_events(), st.data())
def test_flipped_bytes_never_raise_anything_else(event: FeedbackEvent, data: st.DataObject) -> None:
    raw = bytearray(encode_event(event))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_feedback(bytes(raw))
    except ContractError:
        return
    assert decode_feedback(encode_event(decoded)) == decoded


def test_an_event_too_large_is_not_encoded() -> None:
    long = Candidate(item="a", features={"text": "x" * MAX_EVENT_BYTES})
    with pytest.raises(ContractError, match=r"allowed: 1,048,576; send fewer or shorter features"):
        encode_event(exposure(1, 1, items=(long,)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_feedback_is_finite_from_the_start(value: float) -> None:
    with pytest.raises(ValueError, match="allowed: finite"):
        feedback(value=value)


acts_of_one_kind = st.builds(
    feedback, time=st.integers(0, 9), event_id=ids, value=st.floats(-9, 9, allow_nan=False)
)


@given(st.lists(acts_of_one_kind, min_size=1, max_size=5), st.randoms())
@settings(max_examples=50)
def test_latest_does_not_depend_on_the_order(events: list[FeedbackEvent], random: Any) -> None:
    shuffled = list(events)
    random.shuffle(shuffled)
    assert reduce(latest, shuffled) == reduce(latest, events)
    assert reduce(latest, events).time == max(event.time for event in events)


@given(
    *(st.builds(feedback, time=st.integers(0, 1), event_id=st.sampled_from("ab")) for _ in range(3))
)
def test_latest_is_associative_commutative_and_idempotent(
    a: FeedbackEvent, b: FeedbackEvent, c: FeedbackEvent
) -> None:
    """Few times and ids, so that there are ties."""
    assert latest(a, b) == latest(b, a)
    assert latest(latest(a, b), c) == latest(a, latest(b, c))
    assert latest(a, a) == a


def test_slate_of_an_exposure_and_its_feedback() -> None:
    event = exposure(
        log_prob=(-0.1, -0.2, -0.3), arm="b", release="r0002", fallback="", seed=5, surface="home"
    )
    acts = [
        feedback(item="i0", kind="watch", value=3.5, time=9),
        feedback(item="i2", kind="click", time=7),
        feedback(item="i0", kind="click", time=8),
    ]
    slate = slate_of(event, acts)
    # i2 was shown first (position 0), i0 last (position 2).
    assert [(one.position, one.kind, one.value, one.time) for one in slate.feedback] == [
        (0, "click", 1.0, 7),
        (2, "click", 1.0, 8),
        (2, "watch", 3.5, 9),
    ]


@given(exposures())
def test_a_slate_has_every_field_of_its_exposure(event: Exposure) -> None:
    slate = slate_of(event)
    shared = set(Slate.__struct_fields__) & set(Exposure.__struct_fields__)
    assert shared == set(Slate.__struct_fields__) - {"feedback"}
    for field in shared:
        assert getattr(slate, field) == getattr(event, field)
    assert slate.feedback == ()


def test_feedback_on_an_item_that_was_not_shown_must_not_come_this_far() -> None:
    with pytest.raises(KeyError):
        slate_of(exposure(), [feedback(item="elsewhere")])


def test_times_and_features_come_back_with_their_types() -> None:
    features = {"a": 1, "b": 1.0, "c": True, "d": "1", "e": None}
    event = exposure(1, 1, items=(Candidate(item="x", features=features),))
    decoded = decode_exposure(encode_event(event)).candidates[0].features
    assert {name: type(value) for name, value in decoded.items()} == {
        name: type(value) for name, value in features.items()
    }
    assert msgspec.to_builtins(decoded) == features
