"""What a rerank request gives back, whatever happened to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from contracts.rules import GroupLimit, order_within
from contracts.slates import RerankRequest, distinct

#: Why the given order was shown: the deadline passed; no server, release or channel to ask; too
#: many requests were under way; the request was refused; or the answer could not be trusted.
Fallback = Literal["deadline", "unavailable", "overloaded", "bad_request", "bad_response"]


class RerankError(Exception):
    """A request that was not reranked. Raised to the caller only where it asked for that.

    Attributes:
        gone: the server is there, and has no such release.
    """

    def __init__(self, fallback: Fallback, text: str, *, gone: bool = False) -> None:
        super().__init__(text)
        self.fallback: Fallback = fallback
        self.gone = gone


@dataclass(frozen=True)
class RerankResult:
    """The list to show.

    Attributes:
        items: the list, best first; at most n of them, and no item twice.
        indices: the place of each item in the request's candidates, from 0.
        log_prob: natural log-probability of each choice under the release's policy; None in a
            fallback.
        release: the release that made the list, or was asked to; None if none was ever found.
        fallback: None if the list was made by the release, else why it is the given order.
        error: the cause of a fallback in words.
        passes: decoder passes; None in a fallback.
        latency_ms: wall time of the call as the caller saw it.
        relaxed: what of the request's rules had to give: pins that do not stand, and positions at
            which there are more of a group than the limit allows.
        arm: the arm that was served, "experiment/arm" of each experiment joined by ","; "" outside
            of experiments. It is the one assigned, even where another release had to answer.
    """

    request_id: str
    items: tuple[str, ...]
    indices: tuple[int, ...]
    log_prob: tuple[float, ...] | None
    release: str | None
    fallback: Fallback | None
    error: str | None
    passes: int | None
    latency_ms: float
    relaxed: tuple[int, int] = (0, 0)
    arm: str = ""


def given_order(request: RerankRequest, list_size: int | None) -> list[int]:
    """Indices of the list to show without a release: the first n distinct candidates in order.

    Within the request's rules, as a release's list would be. This is the last resort, so it works
    on requests that are malformed in any way. Without a list size (no release was ever reached and
    none was given) it is all of them.
    """
    try:
        first = distinct(request)
        size = len(first) if list_size is None else list_size
        try:
            return _within_rules(request, first, size)
        except (AttributeError, TypeError):  # rules that are none
            return first[:size]
    except (AttributeError, TypeError):  # candidates that are none, or items without a hash
        try:
            return list(range(len(request.candidates)))[:list_size]
        except (AttributeError, TypeError):
            return []


def rules_kept(request: RerankRequest, indices: Sequence[int]) -> tuple[int, int]:
    """``relaxed`` of a list: pins that do not stand, and positions over the limit."""
    rules = request.rules
    items = [request.candidates[index].item for index in indices]
    stand = sum(
        pin.position < len(items) and items[pin.position] == pin.item for pin in rules.pinned
    )
    dropped = len(rules.pinned) - stand
    return dropped, 0 if rules.limit is None else over_limit(rules.limit, request, indices)


def over_limit(limit: GroupLimit, request: RerankRequest, indices: Sequence[int]) -> int:
    """Positions whose item and those before it within the window exceed the limit."""
    groups = [request.candidates[index].features.get(limit.feature) for index in indices]
    total = 0
    for place, group in enumerate(groups):
        window = groups[max(0, place - limit.window + 1) : place + 1]
        total += group is not None and window.count(group) > limit.most
    return total


def _within_rules(request: RerankRequest, first: list[int], size: int) -> list[int]:
    rules = request.rules
    if not rules.pinned and rules.limit is None:
        return first[:size]
    chosen = [request.candidates[index] for index in first]
    feature = rules.limit.feature if rules.limit else ""
    groups = [one.features.get(feature) for one in chosen]
    return [first[i] for i in order_within(rules, [one.item for one in chosen], groups, size)]
