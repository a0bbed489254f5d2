"""Many callers at once on the real Triton: answers stay right, overload falls back and passes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from prometheus_client import CollectorRegistry
from tritonclient.utils import InferenceServerException

from contracts.encoding import FeatureEncoder
from handlers.client import AsyncRerankClient, RerankClient
from handlers.rerank_in_flight import InFlight
from handlers.rerank_metrics import RerankMetrics
from handlers.rerank_result import RerankError, RerankResult
from tests.serving.conftest import DEADLINE_MS, Served
from tests.serving.test_backend import EAGER, batch_sizes, good, infer
from tests.serving.toy_engines import SPEC, toy_request
from training.engines.parity import answer
from training.release.publishing import publish
from training.release.serving_settings import ServingSettings


def ask_all(served: Served, requests: list, release: str = "", **options) -> list[RerankResult]:  # type: ignore[no-untyped-def, type-arg]
    """Every request in a call of its own, all at once, over one connection."""

    async def ask() -> list[RerankResult]:
        async with AsyncRerankClient(
            served.url,
            release or served.release,
            deadline_ms=DEADLINE_MS,
            metrics=RerankMetrics(CollectorRegistry()),
            **options,
        ) as client:
            await client.connect()
            return await asyncio.gather(*(client.rerank(request) for request in requests))

    return asyncio.run(ask())


def test_joined_requests_get_the_lists_that_they_get_alone(alive: Served) -> None:
    """300 requests of three buckets at once; the eager model, one request at a time, is the oracle.

    Triton's own count of batch sizes says whether any were joined; on a busy machine it may take
    more than one attempt.
    """
    requests = [toy_request(number, (5, 12, 40)[number % 3]) for number in range(300)]
    encoder = FeatureEncoder(SPEC)
    wanted = []
    for request in requests:
        order = answer(EAGER, encoder.encode([request]), 0.0, [0]).order_BN[0].tolist()
        wanted.append(tuple(index for index in order if index >= 0))
    model = f"gref_{alive.release}_decoder"
    for _ in range(10):
        with triton.InferenceServerClient(alive.url) as client:
            before = batch_sizes(client, model)
            results = ask_all(alive, requests, max_in_flight=1000)
            joined = batch_sizes(client, model) - before
        assert [result.indices for result in results] == wanted
        assert {result.fallback for result in results} == {None}
        if max(joined) > 1:
            return
    raise AssertionError(f"nothing was joined, so nothing was shown: {joined}")


@pytest.fixture
def small_queue(alive: Served, toy_engines: Path, tmp_path: Path) -> Iterator[str]:
    """A second release on the same Triton, whose engines let two requests wait and no more."""
    settings = ServingSettings(max_queue_size=2, warmup=False)
    publish(toy_engines, tmp_path)
    release = publish(toy_engines, tmp_path, settings)
    name = alive.stack.load(release)
    yield name
    alive.stack.unload(name)


def test_a_full_queue_refuses_at_once_and_passes(alive: Served, small_queue: str) -> None:
    requests = [toy_request(number, 500) for number in range(200)]
    results = ask_all(alive, requests, small_queue, max_in_flight=1000)
    outcomes = Counter(result.fallback for result in results)
    assert outcomes.keys() == {None, "overloaded"}, outcomes
    for result in results:
        assert len(result.items) == SPEC.list_size
        if result.fallback:
            assert result.indices == tuple(range(SPEC.list_size))
            assert result.error is not None
            assert "Exceeds maximum queue size" in result.error
    with RerankClient(
        alive.url,
        small_queue,
        deadline_ms=DEADLINE_MS,
        metrics=RerankMetrics(CollectorRegistry()),
    ) as client:
        assert [client.rerank(request).fallback for request in requests[:5]] == [None] * 5


def test_a_client_has_a_bound_of_its_own(alive: Served) -> None:
    requests = [toy_request(number, 500) for number in range(60)]
    results = ask_all(alive, requests, max_in_flight=3)
    outcomes = Counter(result.fallback for result in results)
    assert outcomes == {None: 3, "overloaded": 57}
    assert {len(result.items) for result in results} == {SPEC.list_size}


def test_what_was_under_way_ends_whatever_became_of_it(alive: Served) -> None:
    """Answers, refusals, messages beyond the bound and servers that are away all give way again."""
    with alive.client(max_in_flight=2) as client:
        many = [toy_request(number, 500) for number in range(640)]  # ten messages
        outcomes = Counter(result.fallback for result in client.rerank_many(many))
        assert outcomes.keys() == {None, "overloaded"}, outcomes
        for _ in range(5):
            assert client.rerank(toy_request(1)).fallback is None
    with RerankClient(
        "127.0.0.1:9", "r0001", max_in_flight=1, metrics=RerankMetrics(CollectorRegistry())
    ) as away:
        assert [away.rerank(toy_request(1)).fallback for _ in range(3)] == ["unavailable"] * 3


def test_the_bound_itself() -> None:
    bound = InFlight(2)
    bound.take()
    with bound.one(), pytest.raises(RerankError, match="2 messages are under way") as refused:
        bound.take()
    assert refused.value.fallback == "overloaded"
    with bound.one():
        pass
    with pytest.raises(ValueError, match="allowed: 1 or more"):
        InFlight(0)


def test_a_body_of_a_hundred_megabytes_is_refused(alive: Served) -> None:
    """More candidates than any bucket: refused by their number, before an engine sees them."""
    arrays = good()
    arrays["ITEM_CAT"] = np.zeros((1, 13_000_000, arrays["ITEM_CAT"].shape[2]), np.int32)
    assert arrays["ITEM_CAT"].nbytes > 100_000_000
    with pytest.raises(InferenceServerException, match="holds 13000000 candidates; allowed: 1 to"):
        infer(alive, arrays)


@pytest.mark.parametrize("candidates", [1, 3, 17, 512])
def test_candidates_that_fill_no_bucket_are_served(alive: Served, candidates: int) -> None:
    """Callers in other languages may not pad; one candidate has axes of size one everywhere."""
    arrays = good(2, max(candidates, 1))
    for name in ("ITEM_CAT", "ITEM_DENSE", "GROUP"):
        arrays[name] = arrays[name][:, :candidates]
    order = infer(alive, arrays).as_numpy("ORDER")
    for row in order.tolist():
        shown = [index for index in row if index >= 0]
        assert sorted(set(shown)) == sorted(shown)
        assert len(shown) == min(candidates, SPEC.list_size)
