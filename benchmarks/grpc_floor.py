"""End-to-end gRPC latency of a release beside its floor, measured in one run.

The floor is an ensemble of two python-backend models with nothing in them (floor_models/), called
on the same server with the same message. Calls of the floor, of the release, of the whole client
and of the release's engines in this process take turns, so that whatever else the machine does
falls on all alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import torch
from prometheus_client import CollectorRegistry
from tritonclient.grpc import service_pb2_grpc

from contracts.encoding import EncodedBatch
from contracts.reading import Strict
from contracts.rules import EncodedRules, without_rules
from contracts.slates import RerankRequest
from deploy.local_triton import LocalTriton
from deploy.served_repository import add_model
from handlers.client import RerankClient
from handlers.rerank_base import CHANNEL_OPTIONS
from handlers.rerank_metrics import RerankMetrics
from handlers.rerank_wire import infer_request
from training.engines.packages import load_package
from training.engines.torchscript import load_engine
from training.release.profiles import ENGINE_FILES

FLOOR_MODELS = Path(__file__).resolve().parent / "floor_models"
FLOOR, FLOOR_STEPS = "floor", ("floor_first", "floor_second")
_DEADLINE_S = 60.0


class Milliseconds(Strict, kw_only=True, frozen=True):
    """Percentiles of latency."""

    p50: float
    p99: float


class GrpcFloor(Strict, kw_only=True, frozen=True):
    """One measurement.

    Attributes:
        rows, candidates: B and the padded M of the message.
        calls: how often each of the three was called.
        floor: the empty ensemble. Message out, message back.
        release: the release, by the same message.
        client: ``RerankClient.rerank_many``: encoding, the release, and the check of its answer.
        engines: the release's two engines in this process, one after the other.
    """

    rows: int
    candidates: int
    calls: int
    floor: Milliseconds
    release: Milliseconds
    client: Milliseconds
    engines: Milliseconds

    @property
    def added(self) -> float:
        """What the way through the ensemble adds to the engines, in floors (p50)."""
        return (self.release.p50 - self.engines.p50) / self.floor.p50


def measure_grpc_floor(
    stack: LocalTriton,
    release: str,
    requests: Sequence[RerankRequest],
    calls: int = 300,
    warmup: int = 20,
) -> GrpcFloor:
    """Measure on a running stack that serves ``release``; the floor is loaded and unloaded again.

    Args:
        requests: one batch, of at most the release's batch size and of one bucket.

    Raises:
        RuntimeError: the release did not answer a call; its time would mean nothing.
    """
    url = stack.state().grpc_url
    for model in (*FLOOR_STEPS, FLOOR):
        add_model(FLOOR_MODELS / model, stack.home.repository)
    stack.load_model(FLOOR)
    try:
        with (
            RerankClient(
                url,
                release,
                deadline_ms=1000 * _DEADLINE_S,
                raise_errors=True,
                metrics=RerankMetrics(CollectorRegistry()),
            ) as client,
            grpc.insecure_channel(url, CHANNEL_OPTIONS) as channel,
        ):
            served = client.connect()
            infer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
            batch = served.encoder.encode(requests)
            seeds = [0] * len(requests)
            padded = batch.item_cat.shape[1]
            rules = without_rules(len(requests), served.spec.list_size, padded)
            empty = infer_request(FLOOR, batch, rules, 0.0, seeds)
            real = infer_request(served.model, batch, rules, 0.0, seeds)
            taken = _take_turns(
                [
                    lambda: infer(empty, timeout=_DEADLINE_S),
                    lambda: infer(real, timeout=_DEADLINE_S),
                    lambda: client.rerank_many(requests),
                    engines_alone(stack, release, batch, rules),
                ],
                calls,
                warmup,
            )
    finally:
        stack.unload_models((FLOOR, *FLOOR_STEPS))
    floor, whole, seen, engines = (_percentiles(times) for times in taken)
    return GrpcFloor(
        rows=len(requests),
        candidates=batch.item_cat.shape[1],
        calls=calls,
        floor=floor,
        release=whole,
        client=seen,
        engines=engines,
    )


def engines_alone(
    stack: LocalTriton, release: str, batch: EncodedBatch, rules: EncodedRules
) -> Callable[[], object]:
    """A call of the engines that the stack serves (profile ``cpu``), without a server."""
    encoder, decoder = (
        _engine(stack.home.repository / f"gref_{release}_{part}" / "1")
        for part in ("encoder", "decoder")
    )
    rows = len(batch.count)
    inputs = (batch.item_cat, batch.item_dense, batch.user_cat, batch.user_dense)
    first = [torch.from_numpy(array) for array in (*inputs, batch.count[:, None])]
    rest = [torch.zeros(rows, 1), torch.zeros(rows, 1, dtype=torch.int64)]
    rest += [torch.from_numpy(array) for array in (rules.pinned, rules.group, rules.limit)]

    def call() -> object:
        with torch.inference_mode():
            return decoder(*encoder(*first), *rest)

    return call


def _engine(version: Path) -> Callable[..., Any]:
    """TorchScript or a package, as the python backend finds it."""
    package = version / ENGINE_FILES["aotinductor"]
    if package.exists():
        run = load_package(package)
        return lambda *inputs: run(list(inputs))
    return load_engine(version / ENGINE_FILES["torchscript"])


def _take_turns(
    functions: Sequence[Callable[[], object]], calls: int, warmup: int
) -> list[list[float]]:
    """Seconds of each call of each function, after ``warmup`` rounds that do not count."""
    taken: list[list[float]] = [[] for _ in functions]
    for turn in range(-warmup, calls):
        for times, function in zip(taken, functions):
            started = time.perf_counter()
            function()
            if turn >= 0:
                times.append(time.perf_counter() - started)
    return taken


def _percentiles(seconds: Sequence[float]) -> Milliseconds:
    p50, p99 = np.percentile(np.asarray(seconds) * 1000, [50, 99])
    return Milliseconds(p50=float(p50), p99=float(p99))
