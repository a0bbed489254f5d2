"""Sending the calls of a job: what the clients of one release and of a routing have in common."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from handlers.rerank_base import as_rerank_error
from handlers.rerank_in_flight import InFlight
from handlers.rerank_job import Call, RerankJob
from handlers.rerank_result import RerankError


def send_calls(stub: Any, in_flight: InFlight, job: RerankJob, calls: Sequence[Call]) -> None:
    """Send all calls of a job at once, and put each outcome into it.

    Raises:
        RerankError: the deadline passed before all were sent; what was sent is without an outcome.
    """
    waiting = []
    for call in calls[1:]:
        left = job.time_left()
        if _taken(in_flight, job, call):
            future = stub.ModelInfer.future(call.message, timeout=left)
            future.add_done_callback(lambda _: in_flight.release())
            waiting.append((call, future.result))
    for call in calls[:1]:  # the usual case, one call, needs no second thread
        left = job.time_left()
        if _taken(in_flight, job, call):
            try:
                _settle(job, call, partial(stub.ModelInfer, call.message, timeout=left))
            finally:
                in_flight.release()
    for call, result in waiting:
        _settle(job, call, result)


async def send_call(stub: Any, in_flight: InFlight, job: RerankJob, call: Call) -> None:
    """Send one call by asyncio, and put its outcome into the job."""
    try:
        with in_flight.one():
            response = await stub.ModelInfer(call.message, timeout=job.time_left())
    except Exception as error:
        job.fail(call.rows, as_rerank_error(error))
    else:
        job.finish(call, response)


def _taken(in_flight: InFlight, job: RerankJob, call: Call) -> bool:
    """Whether the call may be sent; where not, it has failed."""
    try:
        in_flight.take()
    except RerankError as error:
        job.fail(call.rows, error)
        return False
    return True


def _settle(job: RerankJob, call: Call, result: Any) -> None:
    """Put the outcome of a call into its job; ``result`` returns the response or raises."""
    try:
        response = result()
    except Exception as error:
        job.fail(call.rows, as_rerank_error(error))
    else:
        job.finish(call, response)
