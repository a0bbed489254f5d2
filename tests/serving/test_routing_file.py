"""Following the routing file: the ways in which it changes, and those in which it is spoilt."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from contracts.reading import ContractError, canonical_json, decode_json
from contracts.routing import Routing, compile_routing
from handlers.routing_file import MAX_BYTES, RoutingFile
from handlers.routing_metrics import RoutingMetrics
from tests.contracts.made_experiments import experiment
from tests.serving.processes import ROOT, wait_until

ONE = compile_routing("r0001", [experiment()])
TWO = compile_routing("r0002", [])


def put(path: Path, content: Routing | bytes) -> None:
    """Write beside the file and rename: what a rollout does."""
    raw = content if isinstance(content, bytes) else canonical_json(content)
    aside = path.with_name(f"{path.name}.new")
    aside.write_bytes(raw)
    aside.replace(path)


class Followed:
    """A routing file that is followed, and its metrics."""

    def __init__(self, path: Path, **options: object) -> None:
        self.registry = CollectorRegistry()
        self.path = path
        metrics = RoutingMetrics(self.registry)
        self.file = RoutingFile(path, metrics=metrics, **options)  # type: ignore[arg-type]

    def routing(self) -> Routing:
        """What is in force after a look at the file as it is now."""
        return self.file.refresh(60.0).routing

    def errors(self) -> dict[str, float]:
        name = "gref_client_routing_errors_total"
        reasons = ("missing", "unreadable", "invalid")
        values = {one: self.registry.get_sample_value(name, {"reason": one}) for one in reasons}
        return {one: value for one, value in values.items() if value}

    def is_stale(self) -> bool:
        return self.registry.get_sample_value("gref_client_routing_stale") == 1

    def shas(self) -> list[str]:
        found = (sample for metric in self.registry.collect() for sample in metric.samples)
        return [one.labels["sha"] for one in found if one.name == "gref_client_routing_info"]


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[Followed]:
    path = tmp_path / "routing.json"
    put(path, ONE)
    made = Followed(path)
    yield made
    made.file.close()


def test_a_renamed_file_is_seen_without_a_request(followed: Followed) -> None:
    first = followed.file.sha
    put(followed.path, TWO)
    wait_until(lambda: followed.file.current.routing == TWO, "the new routing")
    assert followed.shas() == [followed.file.sha] != [first]
    assert (followed.errors(), followed.is_stale()) == ({}, False)
    loaded = followed.registry.get_sample_value("gref_client_routing_loaded_timestamp_seconds")
    assert loaded == pytest.approx(time.time(), abs=60)


def test_a_swapped_link_is_seen(tmp_path: Path) -> None:
    """As Kubernetes delivers a config map: the file is a link through a folder that is a link."""
    for name, content in (("first", ONE), ("second", TWO)):
        (tmp_path / name).mkdir()
        put(tmp_path / name / "routing.json", content)
    (tmp_path / "..data").symlink_to("first")
    (tmp_path / "routing.json").symlink_to("..data/routing.json")
    made = Followed(tmp_path / "routing.json")
    assert made.file.current.routing == ONE
    (tmp_path / "..data_tmp").symlink_to("second")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    assert made.routing() == TWO
    made.file.close()


def test_a_file_written_in_place_is_seen_though_size_and_times_stay(followed: Followed) -> None:
    put(followed.path, TWO)
    assert followed.routing() == TWO
    before = followed.path.stat()
    with followed.path.open("r+b") as file:
        file.write(canonical_json(TWO).replace(b"r0002", b"r0003"))
    os.utime(followed.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = followed.path.stat()
    assert (before.st_ino, before.st_size, before.st_mtime_ns) == (
        after.st_ino, after.st_size, after.st_mtime_ns,
    )  # fmt: skip
    assert followed.routing().champion == "r0003"


@pytest.mark.parametrize("jump_s", [-3e9, -3600.0, 3600.0, 3e9])
def test_a_clock_that_jumps_changes_nothing(
    followed: Followed, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump_s)
    put(followed.path, TWO)
    os.utime(followed.path, (0, max(0.0, real() + jump_s)))
    wait_until(lambda: followed.file.current.routing == TWO, "the new routing")


GOOD = canonical_json(ONE)
SPOILT = {
    "half-written": GOOD[: len(GOOD) // 2],
    "empty": b"",
    "no JSON": b"version: 1",
    "no UTF-8": b"\xff" + GOOD,
    "no object": b"[]",
    "unknown field": GOOD.replace(b'"champion"', b'"champoin"', 1),
    "newer version": GOOD.replace(b'"version":1', b'"version":2'),
    "weights": GOOD.replace(b'"weight":0.5', b'"weight":0.4'),
    "contradiction": canonical_json(
        {"champion": "r0001", "experiments": [experiment("a"), experiment("b")]}
    ),
    "deep": b"[" * 100_000,
    "large": b" " * MAX_BYTES + GOOD,
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_file_keeps_the_last_good_one(followed: Followed, name: str) -> None:
    for _ in range(2):
        put(followed.path, SPOILT[name])
        assert followed.routing() == ONE
        assert (followed.errors(), followed.is_stale()) == ({"invalid": 1}, True)  # counted once
    put(followed.path, TWO)
    assert followed.routing() == TWO
    assert (followed.errors(), followed.is_stale()) == ({"invalid": 1}, False)


def test_the_log_says_what_is_wrong(followed: Followed, caplog: pytest.LogCaptureFixture) -> None:
    put(followed.path, SPOILT["weights"])
    followed.routing()
    assert "sum to 0.8 (control 0.4 + treatment 0.4)" in caplog.text
    assert f"{followed.file.sha} stays in force" in caplog.text


def test_a_deleted_file_keeps_the_last_good_one(followed: Followed) -> None:
    followed.path.unlink()
    assert followed.routing() == ONE
    assert (followed.errors(), followed.is_stale()) == ({"missing": 1}, True)
    put(followed.path, ONE)  # the same as before it went away
    assert followed.routing() == ONE
    assert not followed.is_stale()


def test_a_folder_and_a_loop_in_its_place(followed: Followed) -> None:
    followed.path.unlink()
    followed.path.mkdir()
    assert followed.routing() == ONE
    assert followed.errors() == {"unreadable": 1}
    followed.path.rmdir()
    followed.path.symlink_to(followed.path.name)
    assert followed.routing() == ONE
    assert followed.errors() == {"unreadable": 2}  # another trouble
    followed.path.unlink()
    put(followed.path, TWO)
    assert followed.routing() == TWO


DENIED = """
import os, sys
from pathlib import Path
from handlers.routing_file import RoutingFile
path = Path(sys.argv[1])
file = RoutingFile(path)
path.chmod(0)
if os.geteuid() == 0:  # whom no mode stops
    os.setresuid(65534, 65534, 65534)
try:
    path.read_bytes()
except PermissionError:
    assert file.refresh(60).routing.champion == "r0001"
    assert "denied" in str(file._seen)
    file.close()
    sys.exit(7)
"""


def test_permission_denied_keeps_the_last_good_one(tmp_path: Path) -> None:
    put(tmp_path / "routing.json", ONE)
    ran = subprocess.run([sys.executable, "-c", DENIED, tmp_path / "routing.json"], cwd=ROOT)
    assert ran.returncode == 7


def test_without_a_file_it_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"routing\.json: no such file"):
        Followed(tmp_path / "routing.json")
    put(tmp_path / "routing.json", SPOILT["weights"])
    with pytest.raises(ContractError, match=r"experiments\[0\]: weights of arms sum to 0\.8"):
        Followed(tmp_path / "routing.json")
    assert not [one for one in threading.enumerate() if one.name == "gref-routing"]


@pytest.mark.parametrize("content", [None, SPOILT["half-written"]])
def test_a_default_release_serves_until_there_is_a_file(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "routing.json"
    if content is not None:
        put(path, content)
    made = Followed(path, default_release="r0009")
    assert made.routing() == Routing(champion="r0009")
    assert made.errors() == {"missing" if content is None else "invalid": 1}
    put(path, ONE)
    assert made.routing() == ONE
    made.file.close()


def test_a_disk_that_hangs_holds_up_nobody(followed: Followed) -> None:
    """A pipe without a writer: opening it never returns, as on a network disk that went away."""
    followed.path.unlink()
    os.mkfifo(followed.path)
    assert followed.file.refresh(0.3).routing == ONE  # gives up waiting, and answers
    assert followed.file.current.routing == ONE
    writer = os.open(followed.path, os.O_WRONLY | os.O_NONBLOCK)  # somebody waits at the other end
    os.write(writer, canonical_json(TWO))
    followed.path.unlink()
    put(followed.path, TWO)
    os.close(writer)
    assert followed.routing() == TWO


def test_a_refresh_sees_what_was_written_before_it(followed: Followed) -> None:
    for number in range(200):
        made = Routing(champion=f"r{number:04d}")
        put(followed.path, made)
        assert followed.routing() == made


def test_many_readers_see_whole_routings_while_it_is_written_badly(followed: Followed) -> None:
    """In place, in pieces, with pauses: what is in force is always one of the two."""
    stop, seen = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            seen.append(followed.file.current.routing)
            time.sleep(0.0005)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(20):
        raw = canonical_json((ONE, TWO)[number % 2])
        with followed.path.open("wb", buffering=0) as file:
            for start in range(0, len(raw), 200):
                file.write(raw[start : start + 200])
                followed.file.refresh(60.0)
        assert followed.routing() == (ONE, TWO)[number % 2]
    stop.set()
    for reader in readers:
        reader.join()
    assert {routing.champion for routing in seen} == {"r0001", "r0002"}
    assert all(routing in (ONE, TWO) for routing in seen)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_spoilt_bytes_get_into_force(followed: Followed, data: st.DataObject) -> None:
    """Cut and altered at random: either it is a routing by the contract, or the last one stays."""
    before = followed.routing()
    raw = bytearray(canonical_json(data.draw(st.sampled_from([ONE, TWO]))))
    del raw[data.draw(st.integers(0, len(raw))) :]
    for _ in range(data.draw(st.integers(0, 3))):
        if raw:
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    put(followed.path, bytes(raw))
    try:
        expected = decode_json(bytes(raw), Routing, "oracle")
    except ContractError:
        expected = before
    assert followed.routing() == expected


FORKED = """
import os, signal, sys, time
from pathlib import Path
from handlers.routing_file import RoutingFile
path = Path(sys.argv[1])
file = RoutingFile(path)
child = os.fork()
if child == 0:
    signal.alarm(60)
    print("ready", flush=True)
    while file.current.routing.champion != "r0002":
        time.sleep(0.01)
    file.close()
    os._exit(7)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
file.close()
sys.exit(code)
"""


def test_a_forked_process_goes_on_following(tmp_path: Path) -> None:
    """Threads do not survive a fork: without a new one a rollback would never reach the child."""
    path = tmp_path / "routing.json"
    put(path, ONE)
    command = [sys.executable, "-c", FORKED, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        put(path, TWO)
        assert process.wait(60) == 7


def test_two_clients_of_a_process_share_their_metrics(followed: Followed) -> None:
    """One removes the old routing's label, and the other finds it gone."""
    other = RoutingFile(followed.path, metrics=followed.file._metrics)
    for routing in (TWO, ONE):
        put(followed.path, routing)
        assert followed.routing() == routing
        assert other.refresh(60.0).routing == routing
        assert (followed.shas(), followed.is_stale()) == ([other.sha], False)
    other.close()


def test_close_ends_the_thread(followed: Followed) -> None:
    followed.file.close()
    assert not followed.file._thread.is_alive()
    assert followed.file.current.routing == ONE


def test_a_file_of_json_as_people_write_it(tmp_path: Path) -> None:
    path = tmp_path / "routing.json"
    path.write_text(json.dumps({"champion": "r0004"}, indent=2) + "\n")
    made = Followed(path)
    assert made.file.current.routing == Routing(champion="r0004")
    made.file.close()
