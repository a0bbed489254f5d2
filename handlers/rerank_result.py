"""What a rerank request gives back, whatever happened to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from contracts.slates import RerankRequest, distinct

#: Why the given order was shown: the deadline passed; no server, release or channel to ask; the
#: request was refused; or the answer could not be trusted.
Fallback = Literal["deadline", "unavailable", "bad_request", "bad_response"]


class RerankError(Exception):
    """A request that was not reranked. Raised to the caller only where it asked for that."""

    def __init__(self, fallback: Fallback, text: str) -> None:
        super().__init__(text)
        self.fallback: Fallback = fallback


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
        relaxed: what the rules had to give (``contracts/rules.py``): pins that do not stand, and
            positions over the limit; None in a fallback.
        latency_ms: wall time of the call as the caller saw it.
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
    relaxed: tuple[int, int] | None = None


def given_order(request: RerankRequest, list_size: int | None) -> list[int]:
    """Indices of the list to show without a release: the first n distinct candidates.

    This is the last resort, so it works on requests that are malformed in any way. Without a list
    size (no release was ever reached and none was given) it is all of them.
    """
    try:
        return distinct(request)[:list_size]
    except (AttributeError, TypeError):  # candidates that are none, or items without a hash
        try:
            return list(range(len(request.candidates)))[:list_size]
        except (AttributeError, TypeError):
            return []
