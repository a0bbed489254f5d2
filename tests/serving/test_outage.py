"""Triton stalls, is killed during a request, comes back: the client answers all along."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from deploy.local_triton import LocalTriton, TritonCrashedError
from deploy.triton_process import StackState
from handlers.client import RerankClient
from handlers.rerank_metrics import RerankMetrics
from handlers.rerank_result import RerankResult
from tests.serving.conftest import DEADLINE_MS, local_triton
from tests.serving.processes import children, wait_until
from tests.serving.toy_engines import SPEC, toy_request


@pytest.fixture
def stack(tmp_path: Path, toy_release: Path) -> Iterator[LocalTriton]:
    """A Triton of the test's own, to be ill-treated; it keeps its ports over a restart."""
    with local_triton(tmp_path) as stack:
        stack.ports = stack.state().ports
        stack.load(toy_release)
        yield stack


def client_of(stack: LocalTriton) -> RerankClient:
    metrics = RerankMetrics(CollectorRegistry())
    client = RerankClient(stack.state().grpc_url, "r0001", deadline_ms=DEADLINE_MS, metrics=metrics)
    client.connect()
    return client


def kill(state: StackState) -> dict[int, str]:
    """Kill a Triton that this test started; returns the stubs that it leaves."""
    stubs = children(state.pid)
    os.kill(state.pid, signal.SIGKILL)
    return stubs


def is_gone(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


def test_a_stalled_triton_meets_the_deadline(stack: LocalTriton) -> None:
    state = stack.state()
    with client_of(stack) as client:
        os.kill(state.pid, signal.SIGSTOP)
        try:
            result = client.rerank(toy_request(1), deadline_ms=50)
        finally:
            os.kill(state.pid, signal.SIGCONT)
        assert result.fallback == "deadline"
        assert len(result.items) == SPEC.list_size
        assert client.rerank(toy_request(1)).fallback is None


def test_killed_during_a_request_and_restarted(stack: LocalTriton, toy_release: Path) -> None:
    state = stack.state()
    results: list[RerankResult] = []
    request = toy_request(1, 9)
    with client_of(stack) as client:
        os.kill(state.pid, signal.SIGSTOP)  # so that the request is surely under way
        asking = threading.Thread(target=lambda: results.append(client.rerank(request)))
        asking.start()
        stubs = kill(state)
        asking.join(timeout=60)
        assert results, "the client hangs"
        assert results[0].fallback == "unavailable"
        assert results[0].items == tuple(c.item for c in request.candidates[: SPEC.list_size])

        wait_until(lambda: is_gone(state.pid), "the end of Triton")
        with pytest.raises(TritonCrashedError, match=r"ended by itself; the end of .*triton\.log"):
            stack.state()
        # Nothing is left over: Triton's children end by themselves, its memory is cleared.
        wait_until(lambda: all(map(is_gone, stubs)), "the end of the stubs")

        for _ in range(3):
            result = client.rerank(request)
            assert (result.fallback, result.items) == ("unavailable", results[0].items)

        again = stack.up()
        assert again.ports == state.ports
        assert again.pid != state.pid
        assert not list(Path("/dev/shm").glob(f"{state.shm_prefix}*"))  # noqa: S108
        assert (stack.home.folder / "triton.log.1").exists(), "the log of the crash is kept"
        stack.load(toy_release)
        wait_until(lambda: client.rerank(request).fallback is None, "the client to reconnect")


def test_killed_engine(stack: LocalTriton, toy_release: Path) -> None:
    """An engine's process dies (out of memory, say). Triton stays up and calls the model ready,
    but does not start it again: requests fall back, and loading the release once more heals it.
    """
    state = stack.state()
    with client_of(stack) as client:
        victim = next(p for p, c in children(state.pid).items() if "_decoder_" in c)
        os.kill(victim, signal.SIGKILL)
        result = client.rerank(toy_request(1))
        assert result.fallback == "unavailable"
        assert "not healthy" in (result.error or "")
        assert len(result.items) == SPEC.list_size
        assert "not healthy" in (stack.failure("r0001") or "")
        stack.load(toy_release)
        assert stack.failure("r0001") is None
        assert client.rerank(toy_request(1)).fallback is None
        assert stack.state().pid == state.pid


def test_no_server_at_all() -> None:
    metrics = RerankMetrics(CollectorRegistry())
    with RerankClient("127.0.0.1:9", "r0001", metrics=metrics) as client:
        result = client.rerank(toy_request(1, 7))
        assert result.fallback in ("unavailable", "deadline")
        assert len(result.items) == 7
    with RerankClient("127.0.0.1:9", "r0001", spec=SPEC, metrics=metrics) as client:
        assert len(client.rerank(toy_request(1, 7)).items) == SPEC.list_size
    assert client.rerank(toy_request(1, 7)).fallback == "unavailable", "closed, and still a list"
