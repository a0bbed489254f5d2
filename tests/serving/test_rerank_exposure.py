"""Exposures: one for each list that a client gives back, as the contract wants it, whatever fails.

What it costs (prints percentiles; two cores, shared): python -m tests.serving.exposure_cost
"""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from contracts.events import EXPOSURES, Exposure, decode_exposure, encode_event, slate_of
from contracts.slates import Candidate, RerankRequest, distinct
from handlers.client import AsyncRerankClient, RerankClient
from handlers.rerank_exposure import exposure_of
from handlers.rerank_metrics import RerankMetrics
from handlers.rerank_result import RerankError, RerankResult, given_order
from streaming.producer import EventProducer
from streaming.producer_metrics import ProducerMetrics
from tests.serving.conftest import DEADLINE_MS, Served
from tests.serving.toy_engines import SPEC, toy_request


def shown(event: Exposure) -> tuple[str, ...]:
    """The items of an exposure in the order of exposure, after a trip over the wire."""
    event = decode_exposure(encode_event(event))
    return tuple(event.candidates[index].item for index in event.exposed)


def test_a_rerank_is_one_exposure(served: Served) -> None:
    taken: list[Exposure] = []
    request = msgspec.structs.replace(toy_request(3, 30), surface="home")
    before = time.time_ns() // 1_000_000
    with served.client(exposures=taken.append, arm="b") as client:
        greedy = client.rerank(request)
        drawn = client.rerank(request, temperature=0.7, seed=-(1 << 63))
    assert len(taken) == 2
    for event, result, settings in (
        (taken[0], greedy, (0.0, 0)),
        (taken[1], drawn, (0.7, -(1 << 63))),
    ):
        assert shown(event) == result.items
        assert event.exposed == result.indices
        assert event.log_prob == result.log_prob
        assert (event.temperature, event.seed) == settings
        assert (event.request_id, event.user) == (request.request_id, request.user)
        assert (event.candidates, event.user_features) == (
            request.candidates,
            request.user_features,
        )
        assert (event.surface, event.arm, event.release) == ("home", "b", "r0001")
        assert (event.fallback, event.feature_spec_sha256) == ("", SPEC.hash())
        assert before <= event.time <= time.time_ns() // 1_000_000


def test_many_requests_each_with_its_own_seed_and_reason(served: Served) -> None:
    taken: list[Exposure] = []
    requests = [toy_request(n, 9 + n) for n in range(6)]
    requests[2] = toy_request(2, 513)
    with served.client(exposures=taken.append) as client:
        results = client.rerank_many(requests, temperature=1.0, seeds=range(6))
        client.rerank_many([])
    assert [event.request_id for event in taken] == [one.request_id for one in requests]
    assert [shown(event) for event in taken] == [result.items for result in results]
    assert [event.fallback for event in taken] == ["", "", "bad_request", "", "", ""]
    assert [event.seed for event in taken] == [0, 1, 0, 3, 4, 5]
    assert taken[2].log_prob is None
    assert (taken[2].temperature, len(taken[2].candidates)) == (0.0, 512)


def test_repeated_items_are_shown_once(served: Served) -> None:
    first = toy_request(1, 6)
    twice = msgspec.structs.replace(
        first, candidates=(*first.candidates[:2], first.candidates[0], *first.candidates[2:])
    )
    taken: list[Exposure] = []
    with served.client(exposures=taken.append) as client:
        plain, repeated = client.rerank(first), client.rerank(twice)
        refused = client.rerank(twice, temperature=-1.0)
    assert taken[1].candidates == taken[0].candidates == first.candidates
    assert [shown(event) for event in taken] == [plain.items, repeated.items, refused.items]
    assert taken[2].fallback == "bad_request"
    assert slate_of(taken[1]).exposed == taken[0].exposed


def test_fallbacks_without_a_server() -> None:
    taken: list[Exposure] = []
    metrics = RerankMetrics(CollectorRegistry())
    options = {"deadline_ms": 300, "metrics": metrics, "exposures": taken.append}
    request = toy_request(1, 100)
    with RerankClient("127.0.0.1:9", "r0007", spec=SPEC, **options) as client:
        result = client.rerank(request, temperature=0.5, seed=3)
    assert result.fallback in ("unavailable", "deadline")
    assert shown(taken[0]) == result.items
    assert (taken[0].fallback, taken[0].release) == (result.fallback, "r0007")
    assert (taken[0].log_prob, taken[0].temperature, taken[0].seed) == (None, 0.0, 0)
    assert taken[0].feature_spec_sha256 == SPEC.hash()
    with RerankClient("127.0.0.1:9", **options) as client:
        result = client.rerank(request)
    assert len(result.items) == 100, "n is not known"
    assert shown(taken[1]) == result.items[:64], "what an event can hold"
    assert (taken[1].release, taken[1].feature_spec_sha256) == ("", "")


def test_asyncio(served: Served) -> None:
    taken: list[Exposure] = []

    async def ask() -> list[RerankResult]:
        client = AsyncRerankClient(
            served.url,
            deadline_ms=DEADLINE_MS,
            metrics=RerankMetrics(CollectorRegistry()),
            exposures=taken.append,
        )
        async with client:
            return await asyncio.gather(*(client.rerank(toy_request(n, 20)) for n in range(10)))

    results = asyncio.run(ask())
    assert {e.request_id: shown(e) for e in taken} == {r.request_id: r.items for r in results}


def test_nothing_that_goes_wrong_reaches_the_caller(served: Served) -> None:
    registry = CollectorRegistry()

    def count(outcome: str) -> float | None:
        return registry.get_sample_value("gref_rerank_exposures_total", {"outcome": outcome})

    def fail(event: Exposure) -> None:
        raise RuntimeError("the callback's own fault")

    metrics = RerankMetrics(registry)
    with served.client(exposures=fail, metrics=metrics) as client:
        assert client.rerank(toy_request(1)).fallback is None
    with served.client(exposures=lambda event: False, metrics=metrics) as client:
        assert client.rerank(toy_request(1)).fallback is None
    with served.client(exposures=lambda event: None, metrics=metrics) as client:
        assert client.rerank(toy_request(1)).fallback is None
        empty = client.rerank(toy_request(1, 0))
        malformed = client.rerank(
            RerankRequest(request_id="r", user="u", candidates=None)  # type: ignore[arg-type]
        )
    assert (empty.items, malformed.items) == ((), ())
    assert (count("failed"), count("lost"), count("taken"), count("impossible")) == (1, 1, 1, 2)


def test_a_call_that_raises_shows_nothing(served: Served) -> None:
    taken: list[Exposure] = []
    with served.client(exposures=taken.append, raise_errors=True) as client:
        with pytest.raises(RerankError):
            client.rerank_many([toy_request(1), toy_request(2, 513)])
        assert taken == []
        client.rerank(toy_request(1))
    assert len(taken) == 1


def test_a_broker_that_never_answers_is_not_waited_for(served: Served, tmp_path: Path) -> None:
    """It accepts connections and is silent; every list is there, every exposure is kept."""
    registry = CollectorRegistry()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        brokers = f"127.0.0.1:{silent.getsockname()[1]}"
        producer = EventProducer(brokers, tmp_path, metrics=ProducerMetrics(registry))
        with served.client(exposures=producer.send) as client:
            results = [client.rerank(toy_request(n, 20)) for n in range(100)]
        assert [result.fallback for result in results] == [None] * 100
        assert producer.close(0.1)
    assert registry.get_sample_value("gref_producer_spooled_total") == 100
    assert not registry.get_sample_value("gref_producer_sent_total", {"topic": EXPOSURES})


@given(
    st.lists(st.sampled_from("abcdef"), min_size=1, max_size=12),
    st.integers(1, 8),
    st.randoms(use_true_random=False),
)
def test_the_event_shows_what_the_result_shows(items: list[str], n: int, random: object) -> None:
    """Whatever repeats among the candidates; both for a list of the release and for a fallback."""
    request = RerankRequest(
        request_id="r", user="u", candidates=tuple(Candidate(item=item) for item in items)
    )
    order = distinct(request)
    random.shuffle(order)  # type: ignore[attr-defined]
    for fallback, indices in ((None, order[:n]), ("deadline", given_order(request, n))):
        result = RerankResult(
            request_id="r",
            items=tuple(items[index] for index in indices),
            indices=tuple(indices),
            log_prob=None if fallback else tuple(-1.0 for _ in indices),
            release="r0001",
            fallback=fallback,  # type: ignore[arg-type]
            error=None,
            passes=None,
            latency_ms=1.0,
        )
        event = exposure_of(request, result, time_ms=5)
        assert shown(event) == result.items
        assert [one.item for one in event.candidates] == list(dict.fromkeys(items))
