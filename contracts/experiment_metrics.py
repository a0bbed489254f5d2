"""What an experiment measures, guards and is ended by: parts of its manifest.

docs/statistics.md says how each is computed.
"""

from __future__ import annotations

import math
import re
from typing import Literal, Union

from contracts.reading import Strict

#: Names become labels of metrics, parts of file names and of ``Exposure.arm``.
MAX_NAME = 64

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?")
_KIND = re.compile(r"[a-z][a-z0-9_]*")


class Metric(Strict, kw_only=True, frozen=True):
    """A number that is made of one kind of feedback.

    Attributes:
        kind: of feedback, as the feature spec names it.
        per: "list": sum of feedback by lists shown; "item": by items shown. Both are ratios of
            sums over units, so that their variance needs the delta method.
        better: the direction that is wanted.
    """

    name: str
    kind: str
    per: Literal["list", "item"] = "list"
    better: Literal["higher", "lower"] = "higher"

    def __post_init__(self) -> None:
        check_name("name", self.name)
        if not _KIND.fullmatch(self.kind):
            raise ValueError(f"kind {self.kind!r}; allowed: lower-case letters, digits and _")


class Guardrail(Strict, kw_only=True, frozen=True):
    """What a treatment may not worsen, whatever it wins.

    Attributes:
        metric: a metric of feedback; or "fallback_share" (lists in the given order by all lists);
            or "latency_p99_ms" (of a rerank as the client saw it, from Prometheus).
        limit: for a metric of feedback the worsening allowed, relative to the control (0.05: five
            per cent); for "fallback_share" the rise over the control's share allowed, absolute;
            for "latency_p99_ms" the highest value of the arm allowed, in ms.
    """

    metric: Union[Metric, Literal["fallback_share", "latency_p99_ms"]]
    limit: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.limit) and self.limit >= 0):
            raise ValueError(f"limit is {self.limit}; allowed: 0 or above")

    @property
    def name(self) -> str:
        return self.metric.name if isinstance(self.metric, Metric) else self.metric

    @property
    def better(self) -> Literal["higher", "lower"]:
        return self.metric.better if isinstance(self.metric, Metric) else "lower"


class StoppingRule(Strict, kw_only=True, frozen=True):
    """When a verdict may be given.

    Attributes:
        alpha: chance of a false alarm of the primary metric, over all looks together.
        min_units: units in each arm before any verdict but that of a guardrail.
        max_days: after so many days since the start it is over, won or not.
        mde: the smallest relative effect that matters; it tunes the confidence sequence.
    """

    alpha: float = 0.05
    min_units: int = 1000
    max_days: int = 28
    mde: float = 0.01

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 0.5:
            raise ValueError(f"alpha is {self.alpha}; allowed: above 0, below 0.5")
        if self.min_units < 2:
            raise ValueError(f"min_units is {self.min_units}; allowed: 2 or more")
        if self.max_days < 1:
            raise ValueError(f"max_days is {self.max_days}; allowed: 1 or more")
        if not 0 < self.mde <= 10:
            raise ValueError(f"mde is {self.mde}; allowed: above 0 (0.01 is one per cent)")


def check_name(field: str, name: str) -> None:
    """Raises ValueError for a name that cannot be a label, a file and a part of an exposure."""
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise ValueError(
            f"{field} {name!r}; allowed: at most {MAX_NAME} lower-case letters, digits, and "
            "_ or - between them"
        )
