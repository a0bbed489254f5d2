"""The routed client on the real Triton: who is asked, what is told, and what may go wrong."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from contracts.assignment import Route, Router, assign, route, seed_of, temperature_of
from contracts.experiments import Arm
from contracts.reading import ContractError, read_json, write_json
from contracts.routing import Routing, compile_routing
from contracts.slates import RerankRequest
from deploy.local_triton import LocalTriton
from handlers.rerank_result import RerankError, RerankResult
from handlers.routed_client import AsyncRoutedClient, RoutedClient
from streaming.traffic.tally import TrafficSummary
from tests.contracts.made_experiments import experiment
from tests.serving.conftest import local_triton
from tests.serving.processes import run, wait_until
from tests.serving.routed import REQUESTS, SEEDS, WARM, Asked, expected, put, split
from tests.serving.toy_engines import SPEC, toy_request, write_toy_engines
from training.release.publishing import publish

Make = Callable[..., Asked]
KINDS = ("threads", "asyncio")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalTriton]:
    """Triton with r0001 and r0002. A test that unloads one of them loads it again."""
    home = tmp_path_factory.mktemp("routed")
    with local_triton(home / "stack") as stack:
        for name, seed in SEEDS.items():
            engines = write_toy_engines(home / f"engines-{name}", seed=seed)
            assert stack.load(publish(engines, home / "releases")) == name
        yield stack


@pytest.fixture
def make_of(stack: LocalTriton, tmp_path: Path) -> Iterator[Make]:
    """Makes a client of a kind, and closes it after the test."""
    made: list[Asked] = []

    def make_of(kind: str, routing: Routing | None = None, **options: Any) -> Asked:
        path = tmp_path / "routing.json"
        if routing is not None:
            put(path, routing)
        url = options.pop("url", stack.state().grpc_url)
        made.append(Asked(kind, url, path, options))
        return made[-1]

    yield make_of
    for asked in made:
        asked.close()


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, make_of: Make) -> Make:
    return partial(make_of, request.param)


@contextmanager
def without(stack: LocalTriton, release: str) -> Iterator[None]:
    """Unloads a release, and loads it again."""
    folder = next(stack.home.repository.glob(f"gref_{release}*")).resolve().parents[1]
    stack.unload(release)
    try:
        yield
    finally:
        stack.load(folder)


def check(asked: Asked, routing: Routing) -> Counter[str]:
    """Each exposure is what the routing says, and its list what that release answers."""
    router, seen = Router(routing), Counter[str]()
    by_id = {request.request_id: request for request in REQUESTS}
    for exposure in asked.exposures:
        request = by_id[exposure.request_id]
        where = router.route(request.surface, request.user, request.request_id)
        told = exposure.release, exposure.arm, exposure.temperature, exposure.seed
        assert told == tuple(where)
        order, log_prob = expected(where.release, request, where.temperature, where.seed)
        assert exposure.exposed == order
        assert exposure.log_prob == pytest.approx(log_prob, abs=1e-5)
        assert exposure.fallback == ""
        assert exposure.feature_spec_sha256 == SPEC.hash()
        seen[f"{exposure.release} {exposure.arm} {exposure.temperature}"] += 1
    return seen


def test_users_are_split_by_arm_and_some_of_an_arm_are_explored(make: Make) -> None:
    routing = split()
    asked = make(routing)
    results = [asked.rerank(request) for request in REQUESTS]
    seen = check(asked, routing)
    assert set(seen) == {"r0001 try/control 0.0", "r0002 try/fresh 0.0", "r0002 try/fresh 0.8"}
    made = routing.experiments[0]
    for request, result, exposure in zip(REQUESTS, results, asked.exposures):
        arm = made.arms[assign(made, request.user)]
        assert (result.fallback, result.arm, result.indices) == (
            None, f"try/{arm.name}", exposure.exposed,
        )  # fmt: skip
        own = temperature_of(arm.exploration, request.request_id)
        assert exposure.temperature == own
    for release, arm in (("r0001", "try/control"), ("r0002", "try/fresh")):
        served = sum(result.release == release for result in results)
        labels = {"release": release, "arm": arm}
        assert asked.value("gref_rerank_requests_total", outcome="ok", **labels) == served > 5
        assert asked.value("gref_rerank_latency_seconds_count", **labels) == served


def test_users_of_several_arms_in_one_call(make: Make) -> None:
    """Different arms, temperatures and paddings: each answer as if it had been asked alone."""
    routing = split()
    asked = make(routing)
    results = asked.many(REQUESTS)
    assert [result.request_id for result in results] == [one.request_id for one in REQUESTS]
    assert len(check(asked, routing)) == 3
    assert {result.release for result in results} == {"r0001", "r0002"}
    assert asked.many([]) == []


def test_a_refused_request_falls_back_alone(make: Make) -> None:
    asked = make(split())
    bad = msgspec.structs.replace(REQUESTS[0], candidates=())
    results = asked.many([*REQUESTS[:8], bad, toy_request(1, 513), *REQUESTS[8:16]])
    assert [result.fallback for result in results] == [
        *[None] * 8, "bad_request", "bad_request", *[None] * 8,
    ]  # fmt: skip


AT_HOME = msgspec.structs.replace(REQUESTS[0], surface="home")
MALFORMED = {
    "no request": None,
    "no user": msgspec.structs.replace(AT_HOME, user=None),
    "user that is a number": msgspec.structs.replace(AT_HOME, user=7),
    "id that is none": msgspec.structs.replace(AT_HOME, request_id=None),
    "surface that is a list": msgspec.structs.replace(AT_HOME, surface=[]),
    "surrogate": msgspec.structs.replace(AT_HOME, user="\ud800"),
    "candidates that are none": msgspec.structs.replace(AT_HOME, candidates=None),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request_never_raises(make: Make, name: str) -> None:
    asked = make(split(surfaces=("home",)))
    results = asked.many([REQUESTS[0], MALFORMED[name], REQUESTS[1]])  # type: ignore[list-item]
    assert [results[0].fallback, results[2].fallback] == [None, None]
    assert results[1].fallback in (None, "bad_request")


def test_one_deadline_for_all_releases(make: Make) -> None:
    asked = make(split())
    asked.many(REQUESTS[:2])
    results = asked.many(REQUESTS, deadline_ms=0.001)
    assert {result.fallback for result in results} == {"deadline"}
    assert {result.arm for result in results} == {"try/control", "try/fresh"}
    assert asked.rerank(REQUESTS[0]).fallback is None


def test_a_fallback_is_an_exposure_of_its_arm(make: Make) -> None:
    """The arm says who was assigned, answered or not; else a release that fails would look good."""
    asked = make(split(), url="127.0.0.1:9", spec=SPEC, deadline_ms=300.0)
    results = asked.many(REQUESTS)
    assert {result.fallback for result in results} <= {"unavailable", "deadline"}
    told = {(exposure.release, exposure.arm) for exposure in asked.exposures}
    assert told == {("r0001", "try/control"), ("r0002", "try/fresh")}
    assert all(one.log_prob is None and one.temperature == 0 for one in asked.exposures)
    assert len(asked.exposures[0].exposed) == SPEC.list_size


def test_a_release_that_is_gone_lets_the_champion_answer(make_of: Make, stack: LocalTriton) -> None:
    """Until it comes back. Both kinds in one test, for a load takes long."""
    both = [make_of(kind, split()) for kind in KINDS]
    for asked in both:
        asked.many(REQUESTS)  # they know the release
        del asked.exposures[:]
    with without(stack, "r0002"):
        for asked in both:
            check_champion_answers(asked)
    for asked in both:
        del asked.exposures[:]
        asked.many(REQUESTS)
        assert len(check(asked, split())) == 3


def check_champion_answers(asked: Asked) -> None:
    fresh = [one for one in REQUESTS if route_of(one).release == "r0002"]
    results = asked.many(REQUESTS)
    again = [asked.rerank(one) for one in fresh]
    for request, result, exposure in zip(REQUESTS, results, asked.exposures):
        assert (result.fallback, result.release) == (None, "r0001"), result.error
        drawn = exposure.temperature, exposure.seed
        assert result.indices == exposure.exposed == expected("r0001", request, *drawn)[0]
        assert exposure.arm == ("try/fresh" if request in fresh else "try/control")
        assert exposure.release == "r0001"
    assert {result.release for result in again} == {"r0001"}
    assert asked.value("gref_client_rerouted_total", release="r0002") == 2 * len(fresh)
    assert asked.value("gref_client_rerouted_total", release="r0001") is None


def test_a_release_that_one_replica_lacks_is_asked_of_the_other(
    make_of: Make, stack: LocalTriton, tmp_path: Path
) -> None:
    """Calls go round the replicas; half of the treatment's would else be the champion's."""
    champion = next(stack.home.repository.glob("gref_r0001*")).resolve().parents[1]
    with local_triton(tmp_path / "lacking") as lacking:
        lacking.load(champion)
        url = "ipv4:" + ",".join(one.state().grpc_url for one in (stack, lacking))
        fresh = next(one for one in REQUESTS if route_of(one).release == "r0002")
        for kind in KINDS:
            asked = make_of(kind, split(), url=url)

            def steady(asked: Asked = asked) -> bool:  # connected to both
                return all(asked.rerank(fresh).release == "r0002" for _ in range(10))

            wait_until(steady, "both replicas")
            del asked.exposures[:]
            for request in REQUESTS:
                asked.rerank(request)
            assert len(check(asked, split())) == 3


def test_a_release_that_is_gone_makes_the_routing_be_read(
    make_of: Make, stack: LocalTriton
) -> None:
    """The champion was changed and the old one unloaded before the client has looked again."""
    both = [make_of(kind, Routing(champion="r0002")) for kind in KINDS]
    assert {asked.rerank(REQUESTS[0]).release for asked in both} == {"r0002"}
    with without(stack, "r0002"):
        put(both[0].path, Routing(champion="r0001"))
        for asked in both:
            result = asked.rerank(REQUESTS[0])
            assert (result.fallback, result.release) == (None, "r0001")


@pytest.mark.parametrize("champion", ["r0077", "r0078"])
def test_where_the_champion_is_gone_too_it_is_the_given_order(make: Make, champion: str) -> None:
    asked = make(split(champion=champion, surfaces=("home",)), spec=SPEC)
    result = asked.rerank(REQUESTS[0])
    assert (result.fallback, result.release) == ("unavailable", champion)
    assert result.indices == tuple(range(SPEC.list_size))
    assert "unknown model" in (result.error or "")
    assert asked.value("gref_client_rerouted_total", release=champion) == 1  # asked once more


def test_two_layers_and_a_surface(make: Make) -> None:
    arms = (
        Arm(name="cold", release="champion", weight=0.5),
        Arm(name="warm", release="champion", weight=0.5, exploration=WARM),
    )
    routing = compile_routing(
        "r0001",
        [
            experiment("release", surfaces=("home",)),
            experiment("warmth", layer="exploration", arms=arms),
        ],
    )
    asked = make(routing)
    at_home = [msgspec.structs.replace(request, surface="home") for request in REQUESTS]
    labels = {result.arm for result in asked.many(at_home)}
    assert labels == {
        f"release/{one},warmth/{other}"
        for one in ("control", "treatment")
        for other in ("cold", "warm")
    }
    assert {result.arm for result in asked.many(REQUESTS)} == {"warmth/cold", "warmth/warm"}
    assert {result.release for result in asked.many(REQUESTS)} == {"r0001"}


def test_a_call_may_draw_by_itself(make: Make) -> None:
    asked = make(split())
    request = REQUESTS[0]
    for options, seed in (({"seed": 5}, 5), ({}, seed_of(request.request_id))):
        result = asked.rerank(request, temperature=1.0, **options)
        release = result.release or ""
        assert result.indices == expected(release, request, 1.0, seed)[0]
        assert (asked.exposures[-1].temperature, asked.exposures[-1].seed) == (1.0, seed)
    assert {one.fallback for one in asked.many(REQUESTS[:3], seeds=[1])} == {"bad_request"}
    assert asked.rerank(request, temperature=-1.0).fallback == "bad_request"


def test_errors_are_raised_where_that_is_asked_for(make: Make) -> None:
    asked = make(split(), raise_errors=True)
    with pytest.raises(RerankError, match="no candidates"):
        asked.rerank(msgspec.structs.replace(REQUESTS[0], candidates=()))
    assert asked.exposures == []


def test_a_start_that_should_fail_early(make: Make) -> None:
    assert set(make(split()).connect()) == {"r0001", "r0002"}
    with pytest.raises(RerankError, match="gref_r0077"):
        make(split(champion="r0077")).connect()
    with pytest.raises(RerankError):
        make(split(), url="127.0.0.1:9").connect(0.2)


def test_a_start_without_a_routing(make: Make) -> None:
    with pytest.raises(ContractError, match=r"routing\.json: no such file"):
        make()
    asked = make(default_release="r0001")
    assert (asked.rerank(REQUESTS[0]).release, asked.exposures[0].arm) == ("r0001", "")


@pytest.mark.parametrize("option", [{"release": "r0001"}, {"arm": "a"}])
def test_the_routing_picks_release_and_arm(tmp_path: Path, option: dict[str, str]) -> None:
    with pytest.raises(TypeError, match="the routing picks that; leave it out"):
        RoutedClient("127.0.0.1:9", put(tmp_path / "routing.json", split()), **option)


#: What a rollout makes of the file: start, ramp, promote, roll back.
CHANGES = (split(0.1), split(0.5), Routing(champion="r0002"), Routing(champion="r0001"))
Seen = tuple[Router, RerankRequest, RerankResult, Router]


def check_changes(seen: list[Seen], asked: Asked) -> None:
    """No request failed, and each was served by a routing that was in force while it was asked."""
    exact = 0
    for before, request, result, after in seen:
        assert result.fallback is None, result.error
        routings = [before.routing] if before is after else CHANGES
        exact += before is after
        routes = [
            Router(one).route(request.surface, request.user, request.request_id) for one in routings
        ]
        fits = [one for one in routes if (one.release, one.arm) == (result.release, result.arm)]
        lists = [expected(one.release, request, one.temperature, one.seed)[0] for one in fits]
        assert result.indices in lists
    assert exact > len(seen) / 2
    told = Counter((one.request_id, one.release, one.arm, one.exposed) for one in asked.exposures)
    assert told == Counter((s.request_id, s.release, s.arm, s.indices) for _, _, s, _ in seen)
    assert {result.arm for _, _, result, _ in seen} == {"", "try/control", "try/fresh"}
    assert asked.value("gref_client_routing_stale") == 0


def test_fifty_changes_under_the_traffic_of_threads(stack: LocalTriton, tmp_path: Path) -> None:
    path = put(tmp_path / "routing.json", CHANGES[-1])
    asked = Asked("threads", stack.state().grpc_url, path)
    following, seen, stop = asked.client.routing, list[Seen](), threading.Event()

    def work(offset: int) -> None:
        for number in count(offset):
            request = REQUESTS[number % len(REQUESTS)]
            before = following.current
            result = asked.rerank(request)
            seen.append((before, request, result, following.current))
            if stop.is_set():
                return

    with ThreadPoolExecutor(3) as pool:
        workers = [pool.submit(work, 20 * n) for n in range(3)]
        for number in range(50):
            put(path, CHANGES[number % 4])
            assert following.refresh(60.0).routing == CHANGES[number % 4]
            enough = len(seen) + 6
            wait_until(lambda enough=enough: len(seen) > enough, "requests between two changes")
        stop.set()
        for worker in workers:
            worker.result()
    asked.close()
    check_changes(seen, asked)


def test_fifty_changes_under_the_traffic_of_a_loop(stack: LocalTriton, tmp_path: Path) -> None:
    path = put(tmp_path / "routing.json", CHANGES[-1])
    asked = Asked("asyncio", stack.state().grpc_url, path)
    client, seen = asked.client, list[Seen]()
    assert isinstance(client, AsyncRoutedClient)

    async def work(offset: int, stop: asyncio.Event) -> None:
        for number in count(offset):
            request = REQUESTS[number % len(REQUESTS)]
            before = client.routing.current
            result = await client.rerank(request)
            seen.append((before, request, result, client.routing.current))
            if stop.is_set():
                return

    async def change() -> None:
        stop = asyncio.Event()
        workers = [asyncio.create_task(work(20 * n, stop)) for n in range(3)]
        for number in range(50):
            put(path, CHANGES[number % 4])
            await asyncio.to_thread(client.routing.refresh, 60.0)
            enough = len(seen) + 6
            while len(seen) < enough:
                await asyncio.sleep(0.001)
        stop.set()
        await asyncio.gather(*workers)

    asked.wait(change())
    asked.close()
    check_changes(seen, asked)


def test_a_roll_back_takes_effect_without_being_asked_for(
    stack: LocalTriton, tmp_path: Path
) -> None:
    """No refresh here: the file alone, as a roll-back at night leaves it."""
    path = put(tmp_path / "routing.json", CHANGES[2])
    asked = Asked("threads", stack.state().grpc_url, path)
    assert asked.rerank(REQUESTS[0]).release == "r0002"
    put(path, CHANGES[3])
    wait_until(lambda: asked.rerank(REQUESTS[0]).release == "r0001", "the roll-back", limit_s=30)
    asked.close()


def test_simulated_users_follow_the_routing(stack: LocalTriton, tmp_path: Path) -> None:
    path, out = put(tmp_path / "routing.json", split()), tmp_path / "summary.json"
    url = stack.state().grpc_url
    asks = ("--url", url, "--no-events", "--requests", "120", "--batch", "8", "--out", out)
    simulate = "streaming/simulate.py"
    ran = run(simulate, *asks, "--routing", path, "--lose-users", "1", "--lose-arm", "try/fresh")
    assert ran.returncode == 0, ran.stderr
    summary = read_json(out, TrafficSummary)
    assert set(summary.arms) == {"try/control", "try/fresh"}
    assert summary.releases == {
        "r0001": summary.arms["try/control"].requests,
        "r0002": summary.arms["try/fresh"].requests,
    }
    assert summary.lost == summary.arms["try/fresh"].requests
    assert "try/control*" in ran.stdout
    for refused in (("--release", "r0001"), ("--explore-temperature", "1")):
        ran = run(simulate, *asks, "--routing", path, *refused)
        assert (ran.returncode, "leave out --release" in ran.stderr) == (2, True)
    ran = run(simulate, *asks, "--routing", tmp_path / "none.json")
    assert (ran.returncode, "no such file" in ran.stderr) == (2, True)


def test_commands(stack: LocalTriton, tmp_path: Path) -> None:
    """``route`` says what ``rerank`` then does."""
    path, request = put(tmp_path / "routing.json", split()), tmp_path / "request.json"
    for one in (REQUESTS[1], next(r for r in REQUESTS if route_of(r).temperature)):
        write_json(request, one)
        asks = "--routing", path, "--request-id", one.request_id
        said = run("handlers/client.py", "route", one.user, *asks)
        assert said.returncode == 0, said.stderr
        wanted = route_of(one)
        drawn = "drawn at 0.8" if wanted.temperature else "greedy"
        assert said.stdout.strip() == f"{wanted.release}, {wanted.arm}, {drawn}"
        url = stack.state().grpc_url
        done = run("handlers/client.py", "rerank", request, "--routing", path, "--url", url)
        assert done.returncode == 0, done.stderr
        assert f"release {wanted.release}, {wanted.arm}," in done.stdout
    both = ("--routing", path, "--release", "r0001")
    refused = run("handlers/client.py", "rerank", request, *both)
    assert (refused.returncode, "leave out --release" in refused.stderr) == (2, True)
    refused = run("handlers/client.py", "route", "u", "--routing", tmp_path / "none.json")
    assert (refused.returncode, "no such file" in refused.stderr) == (2, True)


def route_of(request: RerankRequest) -> Route:
    return route(split(), request.surface, request.user, request.request_id)
