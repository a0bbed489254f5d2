"""What U of Eq. 7 stands for: the source's own utility, another kind, or a kind made of several.

Only the slates change. The simulator's truth is computed for its own kinds as before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from contracts.datasets import SplitTimes
from contracts.features import FeatureSpec, FeedbackKind
from contracts.slates import Feedback, Slate
from training.sources.base import Source, Tally

#: ``own`` is the source's. ``log_watch_time`` is log(1 + seconds), ``blend`` a click, plus
#: two for a long view and four for a like.
Utility = Literal["own", "watch_time", "log_watch_time", "blend"]

BLEND = {"click": 1.0, "long_view": 2.0, "like": 4.0}


def with_utility(source: Source, utility: Utility) -> Source:
    """The source with another utility; itself where it is the source's own."""
    return source if utility == "own" else _Valued(source, utility)


class _Valued:
    """A source whose slates carry one more kind of feedback, which is the utility."""

    def __init__(self, source: Source, utility: Utility) -> None:
        self._source, self._utility = source, utility
        self.name = source.name
        self.split_times: SplitTimes = source.split_times
        kinds = source.spec.feedback
        if utility not in {one.kind for one in kinds}:
            kinds = (*kinds, FeedbackKind(kind=utility, type="continuous"))
        self.spec: FeatureSpec = msgspec.structs.replace(
            source.spec, feedback=kinds, utility=utility
        )

    def settings(self) -> dict[str, Any]:
        return self._source.settings()

    def fingerprint(self) -> str:
        return self._source.fingerprint()

    def expected_lists(self) -> int | None:
        return self._source.expected_lists()

    def slates(self, tally: Tally) -> Iterator[Slate]:
        for slate in self._source.slates(tally):
            yield slate if self._utility == "watch_time" else self._valued(slate)

    def _valued(self, slate: Slate) -> Slate:
        values: dict[int, float] = {}
        times: dict[int, int] = {}
        for one in slate.feedback:
            worth = (
                BLEND.get(one.kind, 0.0) * one.value
                if self._utility == "blend"
                else math.log1p(one.value) * (one.kind == "watch_time")
            )
            if worth:
                values[one.position] = values.get(one.position, 0.0) + worth
                times[one.position] = max(times.get(one.position, 0), one.time)
        made = tuple(
            Feedback(position=place, kind=self._utility, value=value, time=times[place])
            for place, value in sorted(values.items())
        )
        return msgspec.structs.replace(slate, feedback=(*slate.feedback, *made))
