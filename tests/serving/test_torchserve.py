"""A real TorchServe beside a real Triton: the same lists, and bad input that hurts nobody."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import grpc
import msgspec
import numpy as np
import pytest

from benchmarks.torchserve_latency import GRPC, REST, TRITON, measure
from contracts.reading import ContractError
from contracts.rerank_call import RerankAnswer, RerankCall
from contracts.torchserve import TorchServeSettings
from deploy import local_torchserve
from deploy.local_torchserve import LocalTorchServe
from deploy.torchserve_process import call, find_java, find_torchserve
from deploy.triton_install import StackError
from deploy.triton_process import start_ticks
from handlers.archive import make_archive
from handlers.torchserve_client import GrpcClient, RestClient, TorchServeRefusedError
from tests.serving.conftest import Served
from tests.serving.torchserve_calls import BAD, as_json, toy_call
from tests.serving.toy_engines import toy_request

pytestmark = pytest.mark.timeout(240)
T = TypeVar("T")
HUNDRED_MB = 100_000_000
#: Long enough for requests that are sent at once to meet in one batch.
TOGETHER_MS = 20


@pytest.fixture(scope="module", autouse=True)
def torchserve() -> None:
    """Everything here needs it, and the Java that runs it."""
    try:
        find_java()
        find_torchserve()
        pytest.importorskip("model_archiver", reason="needs torch-model-archiver")
    except StackError as missing:
        pytest.skip(f"needs TorchServe: {missing}")


@pytest.fixture(scope="module")
def server(
    torchserve: None, toy_release: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalTorchServe]:
    """TorchServe with the toy release. A test that uses it leaves it as it was."""
    worker = TorchServeSettings(max_batch_delay=TOGETHER_MS)
    with LocalTorchServe(tmp_path_factory.mktemp("ts"), toy_release, worker=worker) as running:
        yield running


@pytest.fixture
def alive(server: LocalTorchServe) -> Iterator[LocalTorchServe]:
    """``server``, and after the test proof that the same process still answers."""
    pid = server.state().pid
    yield server
    assert server.state().pid == pid
    with rest(server) as client:
        assert client.rerank(toy_call(1)).release == "r0001"


def rest(server: LocalTorchServe, **options: Any) -> RestClient:
    state = server.state()
    settings = {"model": state.model, "token": server.token(), **options}
    return RestClient("127.0.0.1", state.ports.inference, **settings)


def over_grpc(server: LocalTorchServe, **options: Any) -> GrpcClient:
    state = server.state()
    settings = {"model": state.model, "token": server.token(), **options}
    return GrpcClient(state.grpc_url, **settings)


def at_once(work: Callable[[Any], T], given: Sequence[Any], threads: int = 16) -> list[T]:
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, given))


def assert_as_triton(
    served: Served, calls: Sequence[RerankCall], found: list[RerankAnswer]
) -> None:
    """Each answer equals the one that Triton's client gets for the same request."""
    with served.client() as client:
        for one, answer in zip(calls, found, strict=True):
            result = client.rerank(one.request, temperature=one.temperature, seed=one.seed)
            assert result.fallback is None, result.error
            assert (answer.items, answer.indices) == (result.items, result.indices)
            np.testing.assert_allclose(answer.log_prob, result.log_prob or (), atol=1e-5)
            assert (answer.request_id, answer.release) == (result.request_id, result.release)
            assert (answer.passes, answer.relaxed) == (result.passes, result.relaxed)


def test_parity_with_triton_over_rest(alive: LocalTorchServe, served: Served) -> None:
    calls = [toy_call(number) for number in range(120)]

    def ask(share: Sequence[RerankCall]) -> list[RerankAnswer]:
        with rest(alive) as client:
            return [client.rerank(one) for one in share]

    shares = [calls[start::12] for start in range(12)]
    answers: list[RerankAnswer | None] = [None] * len(calls)
    for start, share in enumerate(at_once(ask, shares)):
        answers[start::12] = share
    assert_as_triton(served, calls, [one for one in answers if one is not None])


def test_parity_with_triton_over_grpc(alive: LocalTorchServe, served: Served) -> None:
    calls = [toy_call(number) for number in range(120, 240)]
    with over_grpc(alive) as client:
        answers = at_once(client.rerank, calls)
    assert_as_triton(served, calls, answers)
    assert any(sum(one.relaxed) for one in answers), "rules had to give somewhere"
    assert {one.temperature for one in calls} == {0.0, 0.7}


def backend_calls(server: LocalTorchServe) -> int:
    """Batches that the worker has been handed so far, by its log, once that is quiet."""
    log = server.logs / "model_log.log"
    last, quiet_since = -1, time.monotonic()
    while time.monotonic() - quiet_since < 0.5:
        found = log.read_text(errors="replace").count("Backend received inference")
        if found != last:
            last, quiet_since = found, time.monotonic()
        time.sleep(0.05)
    return last


def test_requests_at_once_share_a_batch(alive: LocalTorchServe) -> None:
    one = RerankCall(request=toy_request(5, 12))
    with over_grpc(alive) as client:
        start = backend_calls(alive)
        for _ in range(6):
            client.rerank(one)
        after = backend_calls(alive)
        assert after - start == 6, "one after the other: a batch each"
        expected = client.rerank(one)
        answers = at_once(client.rerank, [one] * 64, threads=32)
        assert backend_calls(alive) - after - 1 <= 16
    for answer in answers:
        assert answer.items == expected.items
        np.testing.assert_allclose(answer.log_prob, expected.log_prob, atol=1e-5)


def test_bad_rows_of_a_batch_are_refused_alone(alive: LocalTorchServe) -> None:
    good = RerankCall(request=toy_request(5, 12))
    with rest(alive) as client:
        expected = client.rerank(good).items
    bodies: list[tuple[bytes, str | None]] = []
    for body, told in BAD.values():
        bodies += [(as_json(good), None), (body, told)]

    def send(given: tuple[bytes, str | None]) -> tuple[int, Any, str | None]:
        body, told = given
        with rest(alive) as client:
            status, answer = client.send(body)
        return status, json.loads(answer), told

    start = backend_calls(alive)
    for status, answer, told in at_once(send, bodies, threads=25):
        if told is None:
            assert (status, tuple(answer["items"])) == (200, expected)
        else:
            assert status == 400
            assert re.search(told, answer["error"]), answer
    assert backend_calls(alive) - start < len(bodies) / 2, "good and bad shared batches"


@pytest.mark.parametrize("name", ["not JSON", "no wrapper", "NaN", "no candidates"])
def test_a_refused_row_over_grpc_is_an_answer(alive: LocalTorchServe, name: str) -> None:
    """TorchServe's gRPC drops the status of a row; the body says it."""
    body, told = BAD[name]
    with over_grpc(alive) as client:
        assert re.search(told, json.loads(client.send(body))["error"])
        wrong = RerankCall(request=msgspec.structs.replace(toy_request(1), candidates=()))
        with pytest.raises(TorchServeRefusedError, match="no candidates") as refused:
            client.rerank(wrong)
        assert refused.value.status == 0


@pytest.mark.parametrize("token", ["", "wrong", "management"])
def test_without_the_right_token(alive: LocalTorchServe, token: str) -> None:
    keys = json.loads(alive.key_file.read_text())
    assert alive.key_file.stat().st_mode & 0o077 == 0, "nobody else may read the tokens"
    given = keys["management"]["key"] if token == "management" else token  # noqa: S105
    with rest(alive, token=given) as client:
        with pytest.raises(TorchServeRefusedError, match="Token Authorization failed") as refused:
            client.rerank(toy_call(1))
        assert refused.value.status == 400
    with over_grpc(alive, token=given) as client:
        with pytest.raises(grpc.RpcError, match="Token Authorization failed") as denied:
            client.rerank(toy_call(1))
        assert denied.value.code() == grpc.StatusCode.PERMISSION_DENIED


def test_a_token_is_renewed(alive: LocalTorchServe, monkeypatch: pytest.MonkeyPatch) -> None:
    old = alive.token()
    assert alive.token() == old, "not before its time"
    keys = json.loads(alive.key_file.read_text())
    keys["inference"]["expiration time"] = "2020-01-01T00:00:00.123456789Z"
    alive.key_file.write_text(json.dumps(keys))
    new = alive.token()
    assert new != old
    with rest(alive, token=old) as client, pytest.raises(TorchServeRefusedError, match="Token"):
        client.rerank(toy_call(1))
    with rest(alive, token=new) as client:
        assert client.rerank(toy_call(1)).items


@pytest.mark.parametrize("size", [5 << 20, HUNDRED_MB])
def test_a_body_that_is_too_large(alive: LocalTorchServe, size: int) -> None:
    body = b" " * size
    with rest(alive) as client:
        try:
            status, _ = client.send(body)
        except (OSError, http.client.HTTPException):
            pass  # it hung up before it had read all
        else:
            assert status == 413
    with over_grpc(alive) as client, pytest.raises(grpc.RpcError) as refused:
        client.send(body)
    codes = (grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert refused.value.code() in codes


def test_a_model_that_is_not_there(alive: LocalTorchServe) -> None:
    with rest(alive, model="gref_r0009") as client:
        with pytest.raises(TorchServeRefusedError, match="Model not found: gref_r0009") as refused:
            client.rerank(toy_call(1))
        assert refused.value.status == 404
    with (
        over_grpc(alive, model="gref_r0009") as client,
        pytest.raises(grpc.RpcError, match="Model not found"),
    ):
        client.rerank(toy_call(1))


def test_the_benchmark_compares_both_servers(alive: LocalTorchServe, served: Served) -> None:
    rows = measure(served.stack, alive, "r0001", (7,), 10)
    assert [row.server for row in rows] == [TRITON, REST, GRPC]
    assert all(0 < row.p50 <= row.p99 for row in rows)
    assert [row.other_lists for row in rows] == [0, 0, 0]
    assert rows[0].ratio == 1


def test_models_cannot_be_registered_from_outside(alive: LocalTorchServe) -> None:
    state = alive.state()
    management = json.loads(alive.key_file.read_text())["management"]["key"]
    for method, path in (("POST", "/models?url=evil.mar"), ("DELETE", f"/models/{state.model}")):
        status, body = call(state.ports.management, method, path, management)
        assert status == 405, body


def test_it_listens_on_the_loopback_address_alone(alive: LocalTorchServe) -> None:
    ports = {f"{port:04X}" for port in msgspec.structs.astuple(alive.state().ports)}
    listening = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, _, port = local.partition(":")
            if port in ports and state == "0A":
                listening.add((address, port))
    loopback = {"0100007F", "0000000000000000FFFF00000100007F"}
    assert {port for _, port in listening} == ports
    assert {address for address, _ in listening} <= loopback


def test_the_worker_uses_what_the_archive_brings(alive: LocalTorchServe) -> None:
    log = (alive.logs / "model_log.log").read_text()
    places = re.findall(r"release r0001 is loaded; contracts of (\S+)/contracts/__init__.py", log)
    assert places
    assert all(place.startswith(alive.state().scratch) for place in places)


def test_metrics(alive: LocalTorchServe) -> None:
    status, body = call(alive.state().ports.metrics, "GET", "/metrics")
    assert status == 200
    found = re.search(rb'ts_inference_requests_total{model_name="gref_r0001".*} (\S+)', body)
    assert found
    assert float(found[1]) > 0


def workers_of(server: LocalTorchServe) -> list[int]:
    """Worker processes of a server: Python, in the process group that Java leads."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            ours = folder.name.isdigit() and os.getpgid(int(folder.name)) == server.state().pid
            if ours and b"model_service_worker" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_a_worker_that_dies_comes_back(alive: LocalTorchServe) -> None:
    (worker,) = workers_of(alive)
    ticks = start_ticks(worker)
    os.kill(worker, signal.SIGKILL)
    give_up = time.monotonic() + 90
    statuses: list[int] = []
    with rest(alive, timeout_s=3.0) as client:
        while statuses[-1:] != [200]:
            assert time.monotonic() < give_up, statuses
            time.sleep(0.2)
            try:
                statuses.append(client.send(as_json(toy_call(1)))[0])
            except (OSError, http.client.HTTPException):
                statuses.append(0)  # TorchServe loses what it had handed to the dead
    assert all(status in (0, 200) or status >= 500 for status in statuses), statuses
    (fresh,) = workers_of(alive)
    assert (fresh, start_ticks(fresh)) != (worker, ticks)


def test_up_again_is_the_same_server(alive: LocalTorchServe, toy_release: Path) -> None:
    again = LocalTorchServe(alive.home, toy_release)
    assert again.up() == alive.state()
    assert again.workers() == ["READY"]
    other = LocalTorchServe(alive.home, toy_release.with_name("r0002"))
    with pytest.raises(StackError, match="serves r0001 here; stop it first"):
        other.up()


def test_a_release_that_was_altered_is_not_started(toy_release: Path, tmp_path: Path) -> None:
    release = Path(shutil.copytree(toy_release, tmp_path / "releases" / "r0001"))
    flip(next(release.rglob("*_encoder/1/model.pt")))
    server = LocalTorchServe(tmp_path / "home", release)
    with pytest.raises(ContractError, match="was altered"):
        server.up()
    with pytest.raises(StackError, match="not running"):
        server.state()
    assert server.down() is False


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_an_archive_that_was_altered_is_refused_by_its_worker(
    toy_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what was started for it is gone: processes, tokens, unpacked files."""

    def altered(release: Path, out: Path, settings: TorchServeSettings) -> Path:
        made = make_archive(release, out, settings)
        with zipfile.ZipFile(made) as source:
            content = {name: source.read(name) for name in source.namelist()}
        content["decoder.pt"] = content["decoder.pt"][:-1] + b"?"
        with zipfile.ZipFile(made, "w") as target:
            for name, data in content.items():
                target.writestr(name, data)
        return made

    monkeypatch.setattr(local_torchserve, "make_archive", altered)
    server = LocalTorchServe(tmp_path / "home", toy_release)
    with pytest.raises(
        StackError,
        match=r"ContractError: .*decoder.pt: not the published decoder: sha256 \w{64}, expected",
    ):
        server.up()
    assert not server.key_file.exists()
    assert not any(
        str(server.home).encode() in (folder / "cmdline").read_bytes()
        for folder in Path("/proc").iterdir()
        if folder.name.isdigit() and (folder / "cmdline").exists()
    )
