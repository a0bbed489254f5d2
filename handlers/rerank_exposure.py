"""The exposure event of a rerank: what is about to be shown, handed to whoever sends it on."""

from __future__ import annotations

import time
from collections.abc import Callable

from contracts.events import Exposure
from contracts.features import MAX_CANDIDATES, MAX_LIST
from contracts.slates import RerankRequest, distinct
from handlers.rerank_job import RerankJob
from handlers.rerank_metrics import RerankMetrics
from handlers.rerank_result import RerankResult

#: Takes an exposure and returns at once, for instance ``EventProducer.send``. False: it is lost.
TakeExposure = Callable[[Exposure], object]


def exposure_of(
    request: RerankRequest,
    result: RerankResult,
    *,
    time_ms: int,
    temperature: float = 0.0,
    seed: int = 0,
    feature_spec_sha256: str = "",
) -> Exposure:
    """The event that says that a result is shown.

    Of an item that is twice among the candidates the event holds the first, as the list does;
    ``exposed`` counts accordingly. A fallback has neither log_prob nor settings of a draw. What no
    event may hold is cut off: candidates beyond 512, shown items beyond 64 (both can come of a
    fallback alone).

    Raises:
        ValueError, TypeError, AttributeError: nothing is shown, or the request is malformed.
    """
    sent = distinct(request)[:MAX_CANDIDATES]
    exposed: tuple[int, ...] = result.indices
    if len(sent) < len(request.candidates):
        place = {index: at for at, index in enumerate(sent)}
        exposed = tuple(place[index] for index in exposed if index in place)
    drawn = result.fallback is None
    return Exposure(
        request_id=request.request_id,
        user=request.user,
        time=time_ms,
        candidates=tuple(request.candidates[index] for index in sent),
        exposed=exposed[:MAX_LIST],
        user_features=request.user_features,
        surface=request.surface,
        release=result.release or "",
        arm=result.arm,
        fallback=result.fallback or "",
        log_prob=result.log_prob,
        temperature=temperature if drawn else 0.0,
        seed=seed if drawn else 0,
        feature_spec_sha256=feature_spec_sha256,
    )


def emit_exposures(
    take: TakeExposure,
    job: RerankJob,
    results: list[RerankResult],
    metrics: RerankMetrics,
    *,
    feature_spec_sha256: str,
) -> None:
    """Hand over one exposure for each result. Never raises: a list is worth more than its event.

    Args:
        feature_spec_sha256: of requests for which no release was read.
    """
    now = time.time_ns() // 1_000_000
    for row, result in enumerate(results):
        try:
            temperature, seed = job.draw(row)
            event = exposure_of(
                job.requests[row],
                result,
                time_ms=now,
                temperature=temperature,
                seed=seed,
                feature_spec_sha256=job.spec_sha256(row) or feature_spec_sha256,
            )
        except Exception:
            metrics.count_exposure("impossible")
            continue
        try:
            lost = take(event) is False
        except Exception:
            metrics.count_exposure("failed")
        else:
            metrics.count_exposure("lost" if lost else "taken")
