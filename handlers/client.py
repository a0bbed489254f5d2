"""The ranking server's client: a request in, always a list back.

    from handlers.client import RerankClient

    client = RerankClient("triton:8001", "r0007", deadline_ms=30)
    result = client.rerank(request)
    show(result.items)              # result.fallback says why, where it is the given order

It encodes by the feature spec that the release itself carries, calls the ensemble under a
deadline, and checks the answer. Where there is none in time, or none that can be trusted, the
list is the given order, cut to n, and ``fallback`` says so; no exception reaches the caller
unless it asks for them (``raise_errors=True``). With ``exposures=EventProducer(...).send``
(``streaming/producer.py``) each list is reported as an exposure event. Make one client per process
and keep it: it holds one connection, may be shared by threads, and connects again by itself.

As a command: ``python handlers/client.py --help``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from contracts.slates import RerankRequest
from handlers.closing import AsyncClosing, Closing
from handlers.rerank_base import (
    RerankBase,
    as_rerank_error,
    open_aio_channel,
    open_channel,
)
from handlers.rerank_job import RerankJob
from handlers.rerank_result import RerankResult
from handlers.rerank_send import send_call, send_calls
from handlers.served_release import ServedRelease, model_of, newest_release


class RerankClient(RerankBase, Closing):
    """The client for threads. Safe to share between them; close it, or use it as a context."""

    def __init__(self, url: str, release: str | None = None, **options: Any) -> None:
        super().__init__(url, release, **options)
        self._channel = open_channel(url, self._credentials)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def rerank(
        self,
        request: RerankRequest,
        *,
        temperature: float = 0.0,
        seed: int = 0,
        deadline_ms: float | None = None,
    ) -> RerankResult:
        """The list to show for one request.

        Args:
            temperature: 0 takes the best item each time; above it, items are drawn, and ``seed``
                (64 bits) makes the draw repeatable.
            deadline_ms: in place of the client's own.
        """
        return self.rerank_many(
            [request], temperature=temperature, seeds=[seed], deadline_ms=deadline_ms
        )[0]

    def rerank_many(
        self,
        requests: Sequence[RerankRequest],
        *,
        temperature: float = 0.0,
        seeds: Sequence[int] | None = None,
        deadline_ms: float | None = None,
    ) -> list[RerankResult]:
        """Lists for several requests under one deadline, in their order.

        A request that is refused falls back alone. Requests of one bucket share a message.
        """
        job = self._job(requests, deadline_ms)
        try:
            served = self._served or self._find(job)
            calls = job.prepare(served, temperature, seeds)
            send_calls(self._stub, self._in_flight, job, calls)
        except Exception as error:
            job.fail_rest(as_rerank_error(error))
        return self._results(job)

    def connect(self, timeout_s: float = 10.0) -> ServedRelease:
        """Read the release now, waiting for the server; for a start that should fail early.

        Raises:
            RerankError: no such server or release within the time, or one that does not fit.
        """
        try:
            grpc.channel_ready_future(self._channel).result(timeout=timeout_s)
            return self._find(RerankJob([], timeout_s * 1000, None))
        except Exception as error:
            raise as_rerank_error(error) from error

    def close(self) -> None:
        self._channel.close()

    def _find(self, job: RerankJob) -> ServedRelease:
        release = self.release
        if release is None:
            index = self._stub.RepositoryIndex(
                service_pb2.RepositoryIndexRequest(ready=True), timeout=job.time_left()
            )
            release = newest_release(model.name for model in index.models)
        request = service_pb2.ModelConfigRequest(name=model_of(release))
        return self._read(self._stub.ModelConfig(request, timeout=job.time_left()), release)


class AsyncRerankClient(RerankBase, AsyncClosing):
    """The client for asyncio. It belongs to the event loop in which it is first used."""

    _channel: grpc.aio.Channel | None = None

    async def rerank(
        self,
        request: RerankRequest,
        *,
        temperature: float = 0.0,
        seed: int = 0,
        deadline_ms: float | None = None,
    ) -> RerankResult:
        """As ``RerankClient.rerank``."""
        results = await self.rerank_many(
            [request], temperature=temperature, seeds=[seed], deadline_ms=deadline_ms
        )
        return results[0]

    async def rerank_many(
        self,
        requests: Sequence[RerankRequest],
        *,
        temperature: float = 0.0,
        seeds: Sequence[int] | None = None,
        deadline_ms: float | None = None,
    ) -> list[RerankResult]:
        """As ``RerankClient.rerank_many``."""
        job = self._job(requests, deadline_ms)
        try:
            served = self._served or await self._find(job)
            calls = job.prepare(served, temperature, seeds)
            await asyncio.gather(
                *(send_call(self._stub, self._in_flight, job, call) for call in calls)
            )
        except Exception as error:
            job.fail_rest(as_rerank_error(error))
        return self._results(job)

    async def connect(self, timeout_s: float = 10.0) -> ServedRelease:
        """As ``RerankClient.connect``."""
        try:
            await asyncio.wait_for(self._open().channel_ready(), timeout_s)
            return await self._find(RerankJob([], timeout_s * 1000, None))
        except Exception as error:
            raise as_rerank_error(error) from error

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()

    def _open(self) -> grpc.aio.Channel:
        if self._channel is None:  # not in __init__: a channel is bound to the running loop
            self._channel = open_aio_channel(self.url, self._credentials)
            self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        return self._channel

    async def _find(self, job: RerankJob) -> ServedRelease:
        self._open()
        release = self.release
        if release is None:
            index = await self._stub.RepositoryIndex(
                service_pb2.RepositoryIndexRequest(ready=True), timeout=job.time_left()
            )
            release = newest_release(model.name for model in index.models)
        request = service_pb2.ModelConfigRequest(name=model_of(release))
        return self._read(await self._stub.ModelConfig(request, timeout=job.time_left()), release)


if __name__ == "__main__":
    from handlers.rerank_cli import app  # typer and rich are for people, not for ranking servers

    app()
