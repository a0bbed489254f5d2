"""The client on the real Triton: what it answers, and what it does with bad requests."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from contracts.encoding import FeatureEncoder
from contracts.rules import GroupLimit, ListRules, Pin
from contracts.slates import Candidate, RerankRequest
from handlers.client import AsyncRerankClient, RerankClient
from handlers.rerank_metrics import RerankMetrics
from handlers.rerank_result import RerankError
from tests.serving.conftest import DEADLINE_MS, Served
from tests.serving.processes import run
from tests.serving.toy_engines import SPEC, toy_modules, toy_request
from training.engines.parity import Engines, answer

EAGER = Engines(*toy_modules(), SPEC.list_size)


def expected(request: RerankRequest, temperature: float = 0.0, seed: int = 0) -> list[int]:
    """The list of the eager model, by an encoder of our own."""
    batch = FeatureEncoder(SPEC).encode([request])
    order = answer(EAGER, batch, temperature, [seed]).order_BN[0].tolist()
    return [index for index in order if index >= 0]


@pytest.mark.parametrize("candidates", [1, 2, 5, 6, 8, 9, 100, 512])
def test_the_list_is_the_models(served: Served, candidates: int) -> None:
    request = toy_request(3, candidates)
    with served.client() as client:
        result = client.rerank(request)
    assert result.fallback is None, result.error
    assert list(result.indices) == expected(request)
    assert result.items == tuple(request.candidates[i].item for i in result.indices)
    assert len(result.items) == min(candidates, SPEC.list_size)
    assert result.log_prob is not None
    assert len(result.log_prob) == len(result.items)
    assert (result.release, result.passes, result.error) == ("r0001", 5, None)
    assert result.latency_ms > 0


def test_sampling_is_repeatable_and_varies(served: Served) -> None:
    request = toy_request(4, 30)
    with served.client() as client:
        lists = [client.rerank(request, temperature=1.0, seed=s).indices for s in range(8)]
        again = [client.rerank(request, temperature=1.0, seed=s).indices for s in range(8)]
    assert lists == again
    assert len(set(lists)) > 1
    assert list(lists[5]) == expected(request, 1.0, 5)


def test_without_a_release_the_newest_is_asked(served: Served) -> None:
    with RerankClient(served.url, deadline_ms=DEADLINE_MS) as client:
        assert client.connect().name == served.release
        assert client.rerank(toy_request(1)).release == served.release


def nan_value() -> RerankRequest:
    request = toy_request(1, 4)
    broken = msgspec.structs.replace(
        request.candidates[2], features={"topic": "film", "price": float("nan")}
    )
    return msgspec.structs.replace(
        request, candidates=(*request.candidates[:2], broken, request.candidates[3])
    )


def with_features(**features: object) -> RerankRequest:
    return RerankRequest(
        request_id="r",
        user="u",
        candidates=tuple(Candidate(item=f"i{n}", features=features) for n in range(7)),
    )


REFUSED = {
    "no candidates": (toy_request(1, 0), "no candidates; allowed: at least one"),
    "513 candidates": (toy_request(1, 513), "513 candidates; allowed: 1 to 512"),
    "NaN": (nan_value(), r"candidate 2 \(item item-1-2\): item feature price: nan"),
    "infinity": (with_features(price=float("inf")), "price: inf"),
    "negative under log1p": (with_features(price=-1.5), "allowed under log1p"),
    "number for a category": (with_features(topic=0.5), "item feature topic: 0.5 is float"),
    "text for a number": (with_features(price="cheap"), "price: 'cheap' is str"),
    "features that are none": (
        RerankRequest(
            request_id="r",
            user="u",
            candidates=(Candidate(item="a", features=None),),  # type: ignore[arg-type]
        ),
        "features are NoneType; allowed: a mapping",
    ),
    "candidates that are none": (
        RerankRequest(request_id="r", user="u", candidates=None),  # type: ignore[arg-type]
        "TypeError",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_request_keeps_the_given_order(alive: Served, name: str) -> None:
    request, message = REFUSED[name]
    with alive.client() as client:
        client.connect()
        result = client.rerank(request)
    assert result.fallback == "bad_request"
    given = request.candidates or ()
    assert result.items == tuple(c.item for c in given[: SPEC.list_size])
    assert result.indices == tuple(range(len(result.items)))
    assert (result.log_prob, result.passes) == (None, None)
    with alive.client(raise_errors=True) as client:
        with pytest.raises(RerankError, match=message) as raised:
            client.rerank(request)
        assert raised.value.fallback == "bad_request"


def test_missing_features_and_unseen_categories_are_served(served: Served) -> None:
    bare = RerankRequest(
        request_id="bare", user="nobody", candidates=tuple(Candidate(item=f"i{n}") for n in "abc")
    )
    unseen = with_features(topic="gardening", price=3.0)
    with served.client() as client:
        for request in (bare, unseen):
            result = client.rerank(request)
            assert result.fallback is None
            assert list(result.indices) == expected(request)


def test_a_repeated_item_is_shown_once(served: Served) -> None:
    first = toy_request(1, 6)
    twice = msgspec.structs.replace(
        first, candidates=(*first.candidates[:2], first.candidates[0], *first.candidates[2:])
    )
    with served.client() as client:
        result, plain = client.rerank(twice), client.rerank(first)
    assert result.items == plain.items
    assert [twice.candidates[i].item for i in result.indices] == list(result.items)
    assert 2 not in result.indices, "the repetition itself is never meant"
    same = msgspec.structs.replace(first, candidates=(first.candidates[0],) * 9)
    with served.client() as client:
        assert client.rerank(same).items == (first.candidates[0].item,)
        refused = client.rerank(same, temperature=-1.0)
        assert (refused.fallback, refused.items) == ("bad_request", (first.candidates[0].item,))


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": "hot"},
        {"seed": 1 << 63},
        {"seed": None},
    ],
)
def test_impossible_options(served: Served, options: dict[str, object]) -> None:
    with served.client() as client:
        client.connect()
        result = client.rerank(toy_request(1), **options)
    assert result.fallback == "bad_request"
    assert len(result.items) == SPEC.list_size


def test_many_requests_each_for_itself(served: Served) -> None:
    """Sizes of every bucket, more than one batch holds, and refused ones among them."""
    sizes = [1 + 7 * n % 70 for n in range(150)]
    requests = [toy_request(n, size) for n, size in enumerate(sizes)]
    requests[10], requests[77] = nan_value(), toy_request(77, 513)
    with served.client() as client:
        results = client.rerank_many(requests)
    assert [r.request_id for r in results] == [r.request_id for r in requests]
    assert [n for n, r in enumerate(results) if r.fallback] == [10, 77]
    for n in range(0, 150, 13):
        assert list(results[n].indices) == expected(requests[n])
    with served.client() as client:
        assert client.rerank_many([]) == []
        assert {r.fallback for r in client.rerank_many(requests[:3], seeds=[1])} == {"bad_request"}


def test_callers_at_once_get_their_own_answers(served: Served) -> None:
    """Threads that share one client and meet in Triton's batcher: the same as alone."""
    requests = [toy_request(n, 9 + n % 30) for n in range(160)]
    with served.client() as client:
        with ThreadPoolExecutor(16) as pool:
            together = list(pool.map(client.rerank, requests))
        alone = [client.rerank(request) for request in requests]
    for request, one, two in zip(requests, together, alone):
        assert one.fallback is None, one.error
        assert one.request_id == request.request_id
        assert one.items == two.items
        np.testing.assert_allclose(one.log_prob, two.log_prob, atol=1e-5)


def test_asyncio(served: Served) -> None:
    requests = [toy_request(n, 9 + n % 30) for n in range(100)]
    requests[40] = nan_value()
    metrics = RerankMetrics(CollectorRegistry())

    async def ask() -> None:
        async with AsyncRerankClient(
            served.url, deadline_ms=DEADLINE_MS, metrics=metrics, max_in_flight=len(requests)
        ) as client:
            assert (await client.connect()).name == served.release
            single = await asyncio.gather(*(client.rerank(request) for request in requests))
            batch = await client.rerank_many(requests)
            for request, one, two in zip(requests, single, batch):
                if request is requests[40]:
                    assert one.fallback == two.fallback == "bad_request"
                    continue
                assert (one.fallback, two.fallback) == (None, None)
                assert list(one.indices) == list(two.indices) == expected(request)

        raising = AsyncRerankClient(
            served.url, served.release, deadline_ms=DEADLINE_MS, raise_errors=True, metrics=metrics
        )
        async with raising as client:
            with pytest.raises(RerankError, match="price: nan"):
                await client.rerank(requests[40])

    asyncio.run(ask())


def test_asyncio_without_a_server() -> None:
    async def ask() -> None:
        metrics = RerankMetrics(CollectorRegistry())
        async with AsyncRerankClient("127.0.0.1:9", "r0001", spec=SPEC, metrics=metrics) as client:
            result = await client.rerank(toy_request(1))
            assert result.fallback in ("unavailable", "deadline")
            assert len(result.items) == SPEC.list_size
            with pytest.raises(RerankError):
                await client.connect(timeout_s=0.2)

    asyncio.run(ask())


def test_a_release_that_is_not_there(alive: Served) -> None:
    with RerankClient(alive.url, "r0999", deadline_ms=DEADLINE_MS) as client:
        result = client.rerank(toy_request(1, 9))
        assert (result.fallback, result.release) == ("unavailable", "r0999")
        assert "gref_r0999" in (result.error or "")
        assert len(result.items) == 9, "n is not known, so nothing is cut off"
        with pytest.raises(RerankError, match="gref_r0999"):
            client.connect()


def test_a_spec_that_is_not_the_releases(served: Served) -> None:
    other = msgspec.structs.replace(SPEC, list_size=4)
    with served.client(spec=other) as client:
        result = client.rerank(toy_request(1, 9))
    assert result.fallback == "bad_response"
    assert "trained on feature spec" in (result.error or "")
    assert len(result.items) == 4
    with served.client(spec=SPEC) as client:
        assert client.rerank(toy_request(1, 9)).fallback is None


def test_deadline(served: Served) -> None:
    with served.client() as client:
        client.connect()
        result = client.rerank(toy_request(1), deadline_ms=0.001)
        assert result.fallback == "deadline"
        assert result.indices == tuple(range(SPEC.list_size))
        assert client.rerank(toy_request(1)).fallback is None


def test_metrics_by_release_and_outcome(served: Served) -> None:
    registry = CollectorRegistry()
    with served.client(metrics=RerankMetrics(registry)) as client:
        client.rerank_many([toy_request(n) for n in range(5)])
        client.rerank(toy_request(1, 513))
        client.rerank(toy_request(1), deadline_ms=0.001)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, {"release": "r0001", "arm": "", **labels})

    assert value("gref_rerank_requests_total", outcome="ok") == 5
    assert value("gref_rerank_requests_total", outcome="bad_request") == 1
    assert value("gref_rerank_requests_total", outcome="deadline") == 1
    assert value("gref_rerank_latency_seconds_count") == 7


def test_command(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    done = run(
        "handlers/client.py", "example", "--url", served.url, "--candidates", 9, "--out", path
    )
    assert done.returncode == 0, done.stderr
    request = json.loads(path.read_text())
    assert len(request["candidates"]) == 9
    assert set(request["candidates"][0]["features"]) == {"topic", "price"}

    done = run("handlers/client.py", "rerank", path, "--url", served.url)
    assert done.returncode == 0, done.stderr
    assert "release r0001" in done.stdout
    assert done.stdout.count("item-") == SPEC.list_size

    done = run(
        "handlers/client.py", "rerank", path, "--url", served.url, "--json", "--release", "r0001"
    )
    assert json.loads(done.stdout)["fallback"] is None

    request["candidates"][3]["features"]["price"] = -4
    path.write_text(json.dumps(request))
    done = run("handlers/client.py", "rerank", path, "--url", served.url)
    assert done.returncode == 2
    assert "given order (bad_request)" in done.stderr
    assert "item feature price" in done.stderr
    assert done.stdout.count("item-") == SPEC.list_size, "the list is shown all the same"

    done = run("handlers/client.py", "rerank", path, "--url", "127.0.0.1:9", "--deadline-ms", 300)
    assert done.returncode == 1
    assert "given order (" in done.stderr


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("{", "not valid JSON"),
        ("{}", "request_id"),
        ('{"request_id": "a", "user": "b", "candidates": [{"item": 3}]}', "candidates[0].item"),
        ('{"request_id": "a", "user": "b", "candidates": [], "usr": 1}', "did you mean user?"),
    ],
)
def test_command_names_what_is_wrong_in_a_file(tmp_path: Path, text: str, field: str) -> None:
    path = tmp_path / "request.json"
    path.write_text(text)
    done = run("handlers/client.py", "rerank", path, "--url", "127.0.0.1:9")
    assert done.returncode == 2
    assert field in done.stderr
    assert str(path) in done.stderr


def test_rules_of_a_request_hold_and_what_gives_is_reported(served: Served) -> None:
    limit = GroupLimit(feature="topic", most=1, window=2)
    request = toy_request(3)
    wanted, absent = request.candidates[7].item, "an item that is no candidate"
    rules = ListRules(
        pinned=(Pin(position=2, item=wanted), Pin(position=0, item=absent)), limit=limit
    )
    registry = CollectorRegistry()
    with served.client(metrics=RerankMetrics(registry)) as client:
        result = client.rerank(msgspec.structs.replace(request, rules=rules))
    assert result.fallback is None
    assert result.items[2] == wanted
    topics = [request.candidates[index].features["topic"] for index in result.indices]
    assert all(one != two for one, two in pairwise(topics))
    assert result.relaxed == (1, 0)
    assert registry.get_sample_value("gref_rerank_relaxed_total", {"rule": "pin"}) == 1


def test_rules_hold_in_a_fallback_too() -> None:
    request = toy_request(3)
    rules = ListRules(pinned=(Pin(position=1, item=request.candidates[5].item),))
    with RerankClient("127.0.0.1:1", "r0001", spec=SPEC, deadline_ms=50) as client:
        result = client.rerank(msgspec.structs.replace(request, rules=rules))
    assert result.fallback is not None
    assert result.indices == (0, 5, 1, 2, 3)
    assert result.relaxed == (0, 0)
