"""Requests and slates: what a ranking server asks, and what one shown list looks like."""

from __future__ import annotations

import math
from typing import Union

import msgspec

from contracts.reading import Strict
from contracts.rules import ListRules

#: A raw feature value. Categories are strings, whole numbers or booleans; dense values numbers.
Scalar = Union[str, bool, int, float, None]


class Candidate(Strict, kw_only=True, frozen=True):
    """One item that the previous ranking stage hands over."""

    item: str
    features: dict[str, Scalar] = msgspec.field(default_factory=dict)
    score: float | None = None


class RerankRequest(Strict, kw_only=True, frozen=True):
    """A user and candidates in the order of the previous stage (the given order).

    Attributes:
        rules: what the list must keep to, whatever the model prefers.
    """

    request_id: str
    user: str
    candidates: tuple[Candidate, ...]
    user_features: dict[str, Scalar] = msgspec.field(default_factory=dict)
    surface: str = ""
    rules: ListRules = ListRules()


def distinct(request: RerankRequest) -> list[int]:
    """Indices of the candidates without those whose item came before: a list shows it once."""
    first: dict[str, int] = {}
    for index, candidate in enumerate(request.candidates):
        first.setdefault(candidate.item, index)
    return list(first.values())


class Feedback(Strict, kw_only=True, frozen=True):
    """What a user did with the item at ``position`` (from 0) of the shown list; time in ms."""

    position: int
    kind: str
    value: float
    time: int


class Slate(Strict, kw_only=True, frozen=True):
    """One shown list with its feedback: the row of the feedback table, the sample of training.

    Attributes:
        time: milliseconds since the epoch, when the list was shown.
        candidates: in the order of the previous stage; index + 1 is that stage's position.
        exposed: indices into ``candidates`` in the order of exposure.
        log_prob: natural log-probability of each exposed choice, where the policy is known.
        fallback: why the given order was shown in place of the release's list; "" if it was not.
        temperature, seed: exploration settings of the decode; temperature 0 is greedy.
        feedback: at most one value for each position and kind.
    """

    request_id: str
    user: str
    time: int
    candidates: tuple[Candidate, ...]
    exposed: tuple[int, ...]
    user_features: dict[str, Scalar] = msgspec.field(default_factory=dict)
    surface: str = ""
    release: str = ""
    arm: str = ""
    fallback: str = ""
    log_prob: tuple[float, ...] | None = None
    temperature: float = 0.0
    seed: int = 0
    feedback: tuple[Feedback, ...] = ()

    def __post_init__(self) -> None:
        m = len(self.candidates)
        if len(set(self.exposed)) != len(self.exposed):
            raise ValueError(f"slate {self.request_id}: exposed names a candidate twice")
        if any(not 0 <= index < m for index in self.exposed):
            raise ValueError(f"slate {self.request_id}: exposed must hold indices 0 to {m - 1}")
        if self.log_prob is not None and len(self.log_prob) != len(self.exposed):
            raise ValueError(f"slate {self.request_id}: log_prob and exposed differ in length")
        seen = set()
        for one in self.feedback:
            if not 0 <= one.position < len(self.exposed):
                raise ValueError(f"slate {self.request_id}: feedback at position {one.position}")
            if not math.isfinite(one.value):
                raise ValueError(f"slate {self.request_id}: feedback value {one.value}")
            if (one.position, one.kind) in seen:
                raise ValueError(
                    f"slate {self.request_id}: feedback {one.kind} twice at {one.position}"
                )
            seen.add((one.position, one.kind))
