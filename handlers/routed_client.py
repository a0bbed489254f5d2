"""The client that follows the routing: each request goes to the release of its arm.

    from handlers.routed_client import RoutedClient

    client = RoutedClient("triton:8001", "/etc/gref/routing.json", deadline_ms=30)
    result = client.rerank(request)
    show(result.items)              # made by result.release, for result.arm

It answers as ``RerankClient`` does (``handlers/client.py``) and takes the same options. It picks
release, arm and exploration of each request by ``contracts/assignment.py`` from the routing file,
which it follows (``handlers/routing_file.py``): a change is in force within 0.1 s, without a
restart. All releases share one connection. A request is served by the routing that was in force
when it came. Where the server has no release of that name, the routing is read once more; if it
still names the release, that is asked again (of several replicas the next has its turn); if it is
not there either, the champion is asked, once, all within the deadline. The exposure keeps the arm
that was assigned and names the release that answered. Make one client per process, after any fork.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from contracts.slates import RerankRequest
from handlers.closing import AsyncClosing, Closing
from handlers.rerank_base import as_rerank_error, open_aio_channel, open_channel
from handlers.rerank_job import Call, RerankJob
from handlers.rerank_result import RerankResult
from handlers.rerank_send import send_call, send_calls
from handlers.routed_base import REFRESH_S, RoutedBase
from handlers.routed_call import RoutedCall
from handlers.served_release import ServedRelease, model_of


class RoutedClient(RoutedBase, Closing):
    """The routed client for threads. Safe to share between them; close it, or use ``with``."""

    def __init__(self, url: str, routing_path: str | Path, **options: Any) -> None:
        super().__init__(url, routing_path, **options)
        self._channel = open_channel(url, self._credentials)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def rerank(
        self,
        request: RerankRequest,
        *,
        temperature: float | None = None,
        seed: int | None = None,
        deadline_ms: float | None = None,
    ) -> RerankResult:
        """The list to show for one request.

        Args:
            temperature: in place of the routing's; 0 is greedy.
            seed: of the draw, in place of the one that is made of the request's id.
            deadline_ms: in place of the client's own.
        """
        seeds = None if seed is None else [seed]
        return self.rerank_many(
            [request], temperature=temperature, seeds=seeds, deadline_ms=deadline_ms
        )[0]

    def rerank_many(
        self,
        requests: Sequence[RerankRequest],
        *,
        temperature: float | None = None,
        seeds: Sequence[int] | None = None,
        deadline_ms: float | None = None,
    ) -> list[RerankResult]:
        """Lists for several requests under one deadline, in their order.

        Their users may be in several arms: every release is asked at the same time.
        """
        call = self._begin(requests, temperature, seeds, deadline_ms)
        job = call.job
        try:
            self._ask(call, call.by_release())
            if job.gone():
                router = self.routing.refresh(min(REFRESH_S, job.time_left() / 2))
                if elsewhere := call.gone_elsewhere(router):
                    self._ask(call, elsewhere)
                if gone := job.gone():
                    self._reroute(call, gone)
                    self._ask(call, {router.routing.champion: gone})
        except Exception as error:
            job.fail_rest(as_rerank_error(error))
        return self._finish(call)

    def connect(self, timeout_s: float = 10.0) -> dict[str, ServedRelease]:
        """Read every release that the routing names; for a start that should fail early.

        Raises:
            RerankError: no such server or release within the time, or one that does not fit.
        """
        try:
            grpc.channel_ready_future(self._channel).result(timeout=timeout_s)
            job = RerankJob([], timeout_s * 1000, None)
            names = self.routing.current.routing.releases
            return {name: self._find(name, job) for name in names}
        except Exception as error:
            raise as_rerank_error(error) from error

    def close(self) -> None:
        self.routing.close()
        self._channel.close()

    def _ask(self, call: RoutedCall, rows_of: Mapping[str, Sequence[int]]) -> None:
        calls: list[Call] = []
        for release, rows in rows_of.items():
            try:
                served = self._releases.get(release) or self._find(release, call.job)
                calls += call.prepare(served, rows)
            except Exception as error:
                call.job.fail(rows, as_rerank_error(error))
        send_calls(self._stub, self._in_flight, call.job, calls)

    def _find(self, release: str, job: RerankJob) -> ServedRelease:
        request = service_pb2.ModelConfigRequest(name=model_of(release))
        return self._keep(self._stub.ModelConfig(request, timeout=job.time_left()), release)


class AsyncRoutedClient(RoutedBase, AsyncClosing):
    """The routed client for asyncio. It belongs to the event loop in which it is first used."""

    _channel: grpc.aio.Channel | None = None

    async def rerank(
        self,
        request: RerankRequest,
        *,
        temperature: float | None = None,
        seed: int | None = None,
        deadline_ms: float | None = None,
    ) -> RerankResult:
        """As ``RoutedClient.rerank``."""
        seeds = None if seed is None else [seed]
        results = await self.rerank_many(
            [request], temperature=temperature, seeds=seeds, deadline_ms=deadline_ms
        )
        return results[0]

    async def rerank_many(
        self,
        requests: Sequence[RerankRequest],
        *,
        temperature: float | None = None,
        seeds: Sequence[int] | None = None,
        deadline_ms: float | None = None,
    ) -> list[RerankResult]:
        """As ``RoutedClient.rerank_many``."""
        call = self._begin(requests, temperature, seeds, deadline_ms)
        job = call.job
        try:
            await self._ask(call, call.by_release())
            if job.gone():
                patience = min(REFRESH_S, job.time_left() / 2)
                router = await asyncio.to_thread(self.routing.refresh, patience)
                if elsewhere := call.gone_elsewhere(router):
                    await self._ask(call, elsewhere)
                if gone := job.gone():
                    self._reroute(call, gone)
                    await self._ask(call, {router.routing.champion: gone})
        except Exception as error:
            job.fail_rest(as_rerank_error(error))
        return self._finish(call)

    async def connect(self, timeout_s: float = 10.0) -> dict[str, ServedRelease]:
        """As ``RoutedClient.connect``."""
        try:
            await asyncio.wait_for(self._open().channel_ready(), timeout_s)
            job = RerankJob([], timeout_s * 1000, None)
            names = self.routing.current.routing.releases
            return {name: await self._find(name, job) for name in names}
        except Exception as error:
            raise as_rerank_error(error) from error

    async def close(self) -> None:
        await asyncio.to_thread(self.routing.close)
        if self._channel is not None:
            await self._channel.close()

    def _open(self) -> grpc.aio.Channel:
        if self._channel is None:  # not in __init__: a channel is bound to the running loop
            self._channel = open_aio_channel(self.url, self._credentials)
            self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        return self._channel

    async def _ask(self, call: RoutedCall, rows_of: Mapping[str, Sequence[int]]) -> None:
        self._open()
        await asyncio.gather(*(self._ask_one(call, name, rows_of[name]) for name in rows_of))

    async def _ask_one(self, call: RoutedCall, release: str, rows: Sequence[int]) -> None:
        try:
            served = self._releases.get(release) or await self._find(release, call.job)
            calls = call.prepare(served, rows)
        except Exception as error:
            call.job.fail(rows, as_rerank_error(error))
        else:
            await asyncio.gather(
                *(send_call(self._stub, self._in_flight, call.job, one) for one in calls)
            )

    async def _find(self, release: str, job: RerankJob) -> ServedRelease:
        request = service_pb2.ModelConfigRequest(name=model_of(release))
        return self._keep(await self._stub.ModelConfig(request, timeout=job.time_left()), release)
