"""Events that cannot become part of a slate, and why."""

from __future__ import annotations

from typing import Literal, NamedTuple

Reason = Literal[
    "too_large",
    "malformed",
    "unknown_version",
    "wrong_key",
    "other_features",
    "feature_value",
    "unknown_kind",
    "wrong_value",
    "future",
    "late_exposure",
    "conflicting_exposure",
    "late_feedback",
    "early_feedback",
    "item_not_shown",
    "no_exposure",
]

#: What each reason means; docs/streaming.md says what to do.
REASONS: dict[Reason, str] = {
    "too_large": "more bytes than an event may have",
    "malformed": "not JSON, or not of the schema",
    "unknown_version": "a version of the schema that this consumer does not know",
    "wrong_key": "the key is not the request_id: it may lie in the wrong partition",
    "other_features": "encoded under another feature spec than the table's",
    "feature_value": "a feature value that its column refuses",
    "unknown_kind": "a kind of feedback that the feature spec does not name",
    "wrong_value": "a value that the kind of feedback cannot have",
    "future": "its time lies ahead of the clock by more than --max-skew",
    "late_exposure": "it came after its slate would have closed",
    "conflicting_exposure": "another list was shown under this request_id",
    "late_feedback": "outside the join window, or it came after its slate had closed",
    "early_feedback": "its time lies before its exposure's by more than --lateness",
    "item_not_shown": "feedback on an item that the list did not show",
    "no_exposure": "no exposure of its request_id came in time",
}


class DeadLetter(NamedTuple):
    """An event as it was read, and why it went no further."""

    reason: Reason
    detail: str
    side: int
    offset: int
    key: bytes | None
    value: bytes | None


class Refused(Exception):
    """An event is refused for what it says itself, whatever else was read."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail
