"""The load generator against a real gRPC server that answers, stalls and refuses as told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path

import grpc
import msgspec
import numpy as np
import pytest

from benchmarks.load_generator import Sender, Stage, run
from benchmarks.load_report import Arm, LoadReport, draw, tables
from benchmarks.load_stage import Generators, StageResult, write_messages

Answer = Callable[[bytes, grpc.ServicerContext], bytes]
STALL_S = 0.4


class Handler(grpc.GenericRpcHandler):
    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(self._answer)


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    servers: list[grpc.Server] = []

    def start(answer: Answer, threads: int = 8) -> str:
        server = grpc.server(futures.ThreadPoolExecutor(threads), handlers=[Handler(answer)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(None).wait()


def stage(url: str, folder: Path, **changes: object) -> Stage:
    messages = write_messages(folder / "messages", [b"one", b"two", b"three"])
    plan = Stage(
        url=url,
        messages=str(messages),
        rate=0.0,
        callers=0,
        seconds=0.5,
        timeout_s=20.0,
        seed=1,
    )
    return msgspec.structs.replace(plan, **changes)


def test_a_stall_is_seen_by_those_who_came_during_it(
    serve: Callable[..., str], tmp_path: Path
) -> None:
    """One stall of a server with one thread: every request that came in it was late, not one alone.

    Bounds are from below, so that a busy machine cannot break them.
    """
    stalled = threading.Event()

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        if not stalled.is_set():
            stalled.set()
            time.sleep(STALL_S)
        return request

    outcome = run(stage(serve(answer, threads=1), tmp_path, rate=200.0))
    late = [ms for ms in outcome.latencies_ms if ms > 1000 * STALL_S / 4]
    assert len(late) >= 20, "200 a second came while it stalled for 0.4 s"
    assert max(outcome.latencies_ms) >= 0.9 * 1000 * STALL_S
    assert not outcome.failed


def test_messages_go_in_turn_and_nobody_is_lost(serve: Callable[..., str], tmp_path: Path) -> None:
    seen: list[bytes] = []
    under_way, most = 0, 0
    lock = threading.Lock()

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        nonlocal under_way, most
        with lock:
            seen.append(request)
            under_way += 1
            most = max(most, under_way)
            refuse = len(seen) % 4 == 0
        time.sleep(0.002)
        with lock:
            under_way -= 1
        if refuse:
            context.abort(grpc.StatusCode.UNAVAILABLE, "as told")
        return request

    outcome = run(stage(serve(answer, threads=32), tmp_path, callers=5))
    assert most <= 5, "a caller waits for its answer before it asks again"
    assert len(outcome.latencies_ms) + outcome.failed["UNAVAILABLE"] == len(seen)
    assert outcome.failed["UNAVAILABLE"] == len(seen) // 4
    thirds = [seen.count(message) for message in (b"one", b"two", b"three")]
    assert max(thirds) - min(thirds) <= 1
    assert outcome.cpu_s > 0


def test_arrivals_are_a_poisson_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the rate that was asked for, whatever the machine does: times are drawn, not measured."""
    from benchmarks import load_generator

    class Clock:
        now = 0.0

        def perf_counter(self) -> float:
            return self.now

        def sleep(self, seconds: float) -> None:
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(load_generator, "time", clock)
    times: list[float] = []

    class Noting(Sender):
        def __init__(self) -> None:
            pass

        def send(self, intended: float, then: threading.Semaphore | None = None) -> None:
            times.append(intended)

        def wait(self) -> None:
            pass

    late = load_generator.open_loop(Noting(), 100.0, 200.0, seed=3)
    assert max(late) < 1e-6
    gaps = np.diff(times)
    assert len(times) == pytest.approx(20_000, abs=5 * 20_000**0.5)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05), "of an exponential, both are equal"


def test_processes_join_their_outcomes(serve: Callable[..., str], tmp_path: Path) -> None:
    count = 0
    lock = threading.Lock()

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        nonlocal count
        with lock:
            count += 1
        return request

    url = serve(answer)
    messages = write_messages(tmp_path / "messages", [b"x"])
    with Generators(2) as generators:
        closed = generators.run(url, messages, [], callers=3, seconds=0.3)
        assert closed.requests == count
        opened = generators.run(url, messages, [], rate=100.0, seconds=0.5)
        assert closed.requests + opened.requests == count
        nobody = generators.run("127.0.0.1:9", messages, [], callers=1, seconds=0.1, connect_s=0.5)
    assert nobody.failed == {"UNAVAILABLE": 1}
    assert nobody.p50 is None
    with pytest.raises(ValueError, match="allowed: 1 to 8"):
        Generators(9)


def result(**changes: object) -> StageResult:
    plain = StageResult(
        rate=0.0,
        callers=32,
        requests=100,
        throughput=100.0,
        failed={},
        p50=1.0,
        p99=2.0,
        p999=3.0,
        server_cpu=0.5,
        generator_cpu=0.1,
        server_ms=1.0,
        late_p99_ms=0.1,
    )
    return msgspec.structs.replace(plain, **changes)


def test_report_judges_and_draws(tmp_path: Path) -> None:
    def report(throughput: float, p99: float | None) -> LoadReport:
        on = Arm(
            name="batching",
            closed=(result(throughput=throughput, p99=p99),),
            open=(result(rate=50.0), result(rate=100.0, p99=None), result(rate=150.0)),
        )
        off = Arm(name="none", closed=(result(),), open=(result(rate=50.0, p99=40.0),))
        return LoadReport(
            candidates=(30,), callers=32, seconds=1.0, p99_limit_ms=30.0, arms=(on, off)
        )

    assert report(200.0, 2.0).holds
    assert not report(199.0, 2.0).holds
    assert not report(200.0, 2.1).holds
    assert not report(200.0, None).holds
    good = report(200.0, 2.0)
    assert good.arms[0].highest_rate(30.0) == 50.0, "100 broke it, so 150 does not count"
    assert good.arms[1].highest_rate(30.0) is None
    assert len(tables(good)) == 2
    draw(good, tmp_path / "load.png")
    assert (tmp_path / "load.png").stat().st_size > 1000
    json.dumps(msgspec.to_builtins(good))
