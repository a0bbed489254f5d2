"""Sending the calls of a job: what the clients of one release and of a routing have in common."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from handlers.rerank_base import as_rerank_error
from handlers.rerank_job import Call, RerankJob


def send_calls(stub: Any, job: RerankJob, calls: Sequence[Call]) -> None:
    """Send all calls of a job at once, and put each outcome into it.

    Raises:
        RerankError: the deadline passed before all were sent; what was sent is without an outcome.
    """
    waiting = []
    for call in calls[1:]:
        future = stub.ModelInfer.future(call.message, timeout=job.time_left())
        waiting.append((call, future.result))
    for call in calls[:1]:  # the usual case, one call, needs no second thread
        _settle(job, call, partial(stub.ModelInfer, call.message, timeout=job.time_left()))
    for call, result in waiting:
        _settle(job, call, result)


async def send_call(stub: Any, job: RerankJob, call: Call) -> None:
    """Send one call by asyncio, and put its outcome into the job."""
    try:
        response = await stub.ModelInfer(call.message, timeout=job.time_left())
    except Exception as error:
        job.fail(call.rows, as_rerank_error(error))
    else:
        job.finish(call, response)


def _settle(job: RerankJob, call: Call, result: Any) -> None:
    """Put the outcome of a call into its job; ``result`` returns the response or raises."""
    try:
        response = result()
    except Exception as error:
        job.fail(call.rows, as_rerank_error(error))
    else:
        job.finish(call, response)
