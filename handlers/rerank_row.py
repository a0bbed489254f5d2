"""One request of a job: how it is asked, what came of it, and the result that this makes."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

from contracts.slates import RerankRequest
from handlers.rerank_result import RerankError, RerankResult, given_order, rules_kept


@dataclass
class Row:
    """A request within a ``RerankJob``, which fills it in.

    Attributes:
        release: the one that is asked, where that is known. list_size: its n, of a fallback too.
        temperature, seed: of the draw.
        sent: the candidates that were sent: distinct ones, by their index.
        outcome: order, log-probabilities and passes; or why there are none; None until it is known.
    """

    request: RerankRequest
    arm: str
    release: str | None
    list_size: int | None
    spec_sha256: str = ""
    temperature: float = 0.0
    seed: int = 0
    sent: list[int] = field(default_factory=list)
    outcome: RerankError | tuple[list[int], list[float], int] | None = None


def result_of(row: Row, latency_ms: float) -> RerankResult:
    """The list to show: the release's, or else the given order."""
    outcome, request = row.outcome, row.request
    error = outcome if isinstance(outcome, RerankError) else None
    relaxed = (0, 0)
    if isinstance(outcome, tuple):
        indices, log_prob, passes = outcome
    else:
        indices = given_order(request, row.list_size)
        error = error or RerankError("unavailable", "no answer")
    with contextlib.suppress(AttributeError, TypeError):  # a request that is malformed
        relaxed = rules_kept(request, indices)
    return RerankResult(
        request_id=getattr(request, "request_id", ""),
        items=tuple(getattr(request.candidates[i], "item", "") for i in indices),
        indices=tuple(indices),
        log_prob=None if error else tuple(log_prob),
        release=row.release,
        fallback=error.fallback if error else None,
        error=str(error) if error else None,
        passes=None if error else passes,
        latency_ms=latency_ms,
        relaxed=relaxed,
        arm=row.arm,
    )
