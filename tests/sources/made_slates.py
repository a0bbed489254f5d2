"""A source made by hand: slates from nowhere, to test what happens after a source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from contracts.datasets import SplitTimes
from contracts.features import Categorical, Dense, FeatureGroup, FeatureSpec, FeedbackKind
from contracts.slates import Candidate, Feedback, Slate
from training.sources.base import Tally

SPEC = FeatureSpec(
    user=FeatureGroup(
        categorical=(
            Categorical(name="user", buckets=64, width=4),
            Categorical(name="group", vocabulary=(), width=4),
        ),
        dense=(Dense(name="age"),),
    ),
    item=FeatureGroup(
        categorical=(Categorical(name="item", buckets=64, width=4),),
        dense=(Dense(name="score"), Dense(name="price", transform="log1p")),
    ),
    list_size=2,
    feedback=(FeedbackKind(kind="click", type="binary"),),
    utility="click",
)


def slate(
    number: int, time: int, *, age: float | None = 1.0, group: str = "a", **changes: Any
) -> Slate:
    """A slate whose feedback says which slate it was: position number % 2, delay number."""
    fields: dict[str, Any] = {
        "request_id": f"r{number}",
        "user": f"u{number % 3}",
        "time": time,
        "candidates": tuple(
            Candidate(item=f"i{index}", score=float(-index), features={"price": number + index})
            for index in range(3)
        ),
        "exposed": (2, 0),
        "user_features": {"group": group, "age": age},
        "feedback": (Feedback(position=number % 2, kind="click", value=1.0, time=time + number),),
    }
    return Slate(**{**fields, **changes})


class MadeSource:
    """Gives the slates that it was made with; fails after them if told to."""

    name = "made"
    spec = SPEC
    split_times = SplitTimes(valid_from=100, test_from=200)

    def __init__(self, slates: Sequence[Slate], error: Exception | None = None) -> None:
        self._slates, self._error = slates, error

    def settings(self) -> dict[str, Any]:
        return {"slates": len(self._slates)}

    def fingerprint(self) -> str:
        return "0" * 64

    def expected_lists(self) -> int | None:
        return None

    def slates(self, tally: Tally) -> Iterator[Slate]:
        for one in self._slates:
            tally.keep("lists")
            yield one
        tally.drop("nothing in particular", 7)
        if self._error is not None:
            raise self._error
