"""deploy/local.py: up, status, down, crash reports, and releases that must not be served."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path

import msgspec
import pytest

from contracts.reading import read_json, write_json
from contracts.releases import MANIFEST, ReleaseManifest, file_sha256
from deploy import triton_install
from deploy.local_triton import LocalTriton, TritonCrashedError
from deploy.served_repository import add_release, newest_release
from deploy.triton_install import StackError, find_triton, install_wheel, pinned_version
from deploy.triton_process import Ports, StackState, choose_ports, is_alive, start_ticks, stop
from tests.serving.conftest import Served, local_triton
from tests.serving.processes import run
from tests.serving.toy_engines import toy_request


def test_up_twice_status_logs_down(tmp_path: Path, toy_release: Path) -> None:
    home = ("--home", tmp_path / "stack")
    free = [x for name in ("http", "grpc", "metrics") for x in (f"--{name}-port", 0)]
    up = ("up", "--release", toy_release, *free, *home)
    try:
        first = run("deploy/local.py", *up)
        assert first.returncode == 0, first.stderr
        assert "Triton serves r0001" in first.stdout
        state = read_json(tmp_path / "stack" / "state.json", StackState)
        again = run("deploy/local.py", *up)
        assert again.returncode == 0, again.stderr
        assert again.stdout == first.stdout
        assert read_json(tmp_path / "stack" / "state.json", StackState) == state

        status = run("deploy/local.py", "status", *home)
        assert status.returncode == 0
        assert state.grpc_url in status.stdout
        assert "r0001: answers" in status.stdout
        assert "successfully loaded 'gref_r0001'" in run("deploy/local.py", "logs", *home).stdout
    finally:
        down = run("deploy/local.py", "down", *home)
    assert "Triton is stopped" in down.stdout
    assert not is_alive(state)
    assert run("deploy/local.py", "down", *home).stdout == "Triton was not running\n"
    status = run("deploy/local.py", "status", *home)
    assert status.returncode == 1
    assert "not running; start it with" in status.stderr


def test_crash_is_reported_with_the_end_of_the_log(tmp_path: Path, toy_release: Path) -> None:
    with local_triton(tmp_path) as stack:
        state = stack.state()
        os.kill(state.pid, 11)
        stack._process.wait(timeout=60)  # type: ignore[union-attr]
        with pytest.raises(TritonCrashedError) as crash:
            stack.load(toy_release)
        assert f"Triton (pid {state.pid}) ended by itself" in str(crash.value)
        assert stack.log_tail(3) in str(crash.value)
        status = run("deploy/local.py", "status", "--home", tmp_path)
        assert status.returncode == 1
        assert "ended by itself" in status.stderr


def test_a_triton_that_cannot_start(tmp_path: Path) -> None:
    """A binary that ends at once: its last words are in the error."""
    root = tmp_path / "other"
    (root / "bin").mkdir(parents=True)
    (root / "backends" / "python").mkdir(parents=True)
    for name in ("libtriton_python.so", "triton_python_backend_stub"):
        (root / "backends" / "python" / name).touch()
    binary = root / "bin" / "tritonserver"
    binary.write_text("#!/bin/sh\necho out of luck $1; exit 3\n")
    binary.chmod(0o755)
    stack = LocalTriton(tmp_path / "stack", triton=binary)
    with pytest.raises(TritonCrashedError, match="out of luck --model-repository="):
        stack.up()
    with pytest.raises(StackError, match="not running"):
        stack.state()


def test_an_existing_binary_may_be_named(served: Served, tmp_path: Path, toy_release: Path) -> None:
    """The layout of a container: bin/tritonserver beside backends/python with its stub."""
    running = Path(served.stack.state().binary)
    root = tmp_path / "opt"
    (root / "bin").mkdir(parents=True)
    shutil.copy2(running, root / "bin" / "tritonserver")
    shutil.copytree(served.stack.home.folder / "backends", root / "backends")
    libraries = running.parents[3] / "nvidia_pytriton.libs"
    shutil.copytree(running.parents[1] / "caches", root / "caches")
    os.environ["LD_LIBRARY_PATH"] = str(libraries)
    try:
        with LocalTriton(tmp_path / "stack", triton=root / "bin" / "tritonserver") as stack:
            assert stack.load(toy_release) == "r0001"
    finally:
        del os.environ["LD_LIBRARY_PATH"]


def test_ports(tmp_path: Path, toy_release: Path) -> None:
    chosen = choose_ports(Ports())
    assert len({chosen.http, chosen.grpc, chosen.metrics}) == 3
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StackError, match=rf"grpc port {port} cannot be used.*--grpc-port"):
            choose_ports(Ports(grpc=port))
        done = run(
            "deploy/local.py",
            "up",
            "--release",
            toy_release,
            "--http-port",
            port,
            "--home",
            tmp_path,
        )
        assert done.returncode == 2
        assert f"http port {port} cannot be used" in done.stderr


def test_a_recycled_pid_is_never_signalled(tmp_path: Path) -> None:
    """The state names this very process, but with another start time."""
    mine = start_ticks(os.getpid())
    assert mine is not None
    stranger = StackState(
        pid=os.getpid(),
        start_ticks=mine - 1,
        ports=Ports(),
        binary="",
        repository="",
        log="",
        shm_prefix="gref_of_nobody",
    )
    assert not is_alive(stranger)
    stop(stranger, None, 1.0)  # would end the test run
    write_json(tmp_path / "state.json", stranger)
    assert LocalTriton(tmp_path).down() is False
    assert is_alive(msgspec.structs.replace(stranger, start_ticks=mine))


@pytest.fixture
def damaged(toy_release: Path, tmp_path: Path) -> Path:
    """A copy of the release under another name's folder, to be damaged."""
    return Path(shutil.copytree(toy_release, tmp_path / "r0001"))


def test_altered_release_is_refused(alive: Served, damaged: Path) -> None:
    engine = damaged / "repository" / "gref_r0001_encoder" / "1" / "model.pt"
    engine.write_bytes(engine.read_bytes()[:-1])
    with pytest.raises(StackError, match=r"model\.pt was altered.*must not be served"):
        alive.stack.load(damaged)


def test_two_releases_of_one_name_are_refused(alive: Served, damaged: Path) -> None:
    with pytest.raises(StackError, match="two releases of one name"):
        alive.stack.load(damaged)


def test_backend_refuses_an_engine_that_is_not_the_published_one(
    served: Served, damaged: Path, tmp_path: Path
) -> None:
    """Even where the manifest was made to agree, the configuration's hash does not.

    Both hashes are named, Triton stays alive, and nothing of the release remains loaded.
    """
    release = rename_release(damaged, "r0007")
    engine = release / "repository" / "gref_r0007_encoder" / "1" / "model.pt"
    before = file_sha256(engine)
    engine.write_bytes(engine.read_bytes() + b"\0")
    rewrite_manifest(release, "r0007")
    with pytest.raises(StackError, match="not the published one") as refused:
        served.stack.load(release)
    assert before in str(refused.value)
    assert file_sha256(engine) in str(refused.value)
    assert not any("r0007" in model for model in served.stack.models())
    with served.client() as client:
        assert client.rerank(toy_request(1)).fallback is None


def test_two_releases_side_by_side_and_unload(served: Served, damaged: Path) -> None:
    release = rename_release(damaged, "r0008")
    rewrite_manifest(release, "r0008")
    served.stack.load(release)
    with served.client() as old, Served(served.stack, "r0008").client() as new:
        request = toy_request(5)
        assert old.rerank(request).release == "r0001"
        result = new.rerank(request)
        assert (result.fallback, result.release) == (None, "r0008")
        served.stack.unload("r0008")
        assert new.rerank(request).fallback == "unavailable"
        assert old.rerank(request).fallback is None
    assert [model for model in served.stack.models() if "r0008" in model] == []


def rename_release(folder: Path, name: str) -> Path:
    """The same engines under another name, as if published again."""
    renamed = folder.rename(folder.with_name(name))
    for model in list((renamed / "repository").iterdir()):
        config = model / "config.pbtxt"
        config.write_text(config.read_text().replace("r0001", name))
        model.rename(model.with_name(model.name.replace("r0001", name)))
    return renamed


def rewrite_manifest(release: Path, name: str) -> None:
    manifest = read_json(release / MANIFEST, ReleaseManifest)
    files = {
        str(path.relative_to(release)): file_sha256(path)
        for path in release.rglob("*")
        if path.is_file() and path.name != MANIFEST
    }
    engines = tuple(
        msgspec.structs.replace(engine, file=engine.file.replace("r0001", name))
        for engine in manifest.engines
    )
    changed = msgspec.structs.replace(manifest, name=name, files=files, engines=engines)
    write_json(release / MANIFEST, changed)


def test_newest_release(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="holds no release"):
        newest_release(tmp_path)
    for name in ("r0002", "r0010", "r9", ".staging-x", "runs"):
        (tmp_path / name).mkdir()
    assert newest_release(tmp_path).name == "r0010"


def test_linking_is_idempotent(toy_release: Path, tmp_path: Path) -> None:
    assert add_release(toy_release, tmp_path) == add_release(toy_release, tmp_path) == "r0001"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "gref_r0001",
        "gref_r0001_decoder",
        "gref_r0001_encoder",
    ]


def test_the_wheel_is_pinned(tmp_path: Path) -> None:
    assert pinned_version()
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\n")
    with pytest.raises(StackError, match="holds no line nvidia-pytriton==VERSION"):
        pinned_version(tmp_path / "constraints.txt")


def test_failed_installation_leaves_nothing(tmp_path: Path) -> None:
    """A version that nobody has: pip fails, the folder does not appear, and a retry may succeed."""
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("nvidia-pytriton==0.0.999\n")
    with pytest.raises(StackError, match=r"nvidia-pytriton==0\.0\.999 could not be installed"):
        install_wheel(tmp_path / "triton", constraints)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["constraints.txt", "triton.lock"]
    (tmp_path / "triton").mkdir()
    with pytest.raises(StackError, match=r"tritonserver: no such file.*--triton"):
        find_triton(tmp_path / "triton")


def test_installation_by_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The installation itself, with a wheel made here: complete, or not there."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    make_wheel(wheels / "nvidia_pytriton-9.9-py3-none-any.whl")
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("# pinned\nnvidia-pytriton==9.9\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    folder = install_wheel(tmp_path / "triton", constraints)
    assert (folder / "pytriton" / "here.txt").read_text() == "yes"
    shutil.rmtree(wheels)
    assert install_wheel(tmp_path / "triton", constraints) == folder, "it is not fetched again"
    assert triton_install.WHEEL_FOLDER.parts[-2:] == (".local", "triton")


def make_wheel(path: Path) -> None:
    import zipfile

    info = "nvidia_pytriton-9.9.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("pytriton/here.txt", "yes")
        metadata = "Metadata-Version: 2.1\nName: nvidia-pytriton\nVersion: 9.9\n"
        metadata += "Requires-Dist: a-package-that-nobody-has\n"
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def test_state_is_plain_json(served: Served) -> None:
    state = json.loads((served.stack.home.folder / "state.json").read_text())
    assert state["pid"] == served.stack.state().pid
    assert set(state["ports"]) == {"http", "grpc", "metrics"}


def test_a_release_that_is_not_there_starts_nothing(tmp_path: Path) -> None:
    home = tmp_path / "stack"
    done = run("deploy/local.py", "up", "--release", tmp_path / "r0404", "--home", home)
    assert done.returncode == 2
    assert "r0404" in done.stderr
    assert not (home / "state.json").exists()
