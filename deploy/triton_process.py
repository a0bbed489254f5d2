"""The Triton process of the local stack: its state file, and a stop that hits nothing else."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from contracts.reading import Strict, read_json, write_json
from deploy.triton_install import StackError, TritonFiles, assemble_backends, server_environment

LOCALHOST = "127.0.0.1"
_POLL_S = 0.05


class Ports(Strict, kw_only=True, frozen=True):
    """Ports on the loopback address; 0 takes any free one."""

    http: int = 0
    grpc: int = 0
    metrics: int = 0


class StackState(Strict, kw_only=True, frozen=True):
    """``state.json``: which process this is, and where it can be reached.

    ``start_ticks`` is the process's start time (field 22 of /proc/PID/stat): with the pid it names
    one process for good, so that a pid that was given to another program is never signalled.
    """

    pid: int
    start_ticks: int
    ports: Ports
    binary: str
    repository: str
    log: str
    shm_prefix: str

    @property
    def grpc_url(self) -> str:
        return f"{LOCALHOST}:{self.ports.grpc}"


@dataclass(frozen=True)
class Home:
    """The folder of a local stack and what lies in it."""

    folder: Path

    @property
    def state(self) -> Path:
        return self.folder / "state.json"

    @property
    def log(self) -> Path:
        return self.folder / "triton.log"

    @property
    def repository(self) -> Path:
        return self.folder / "repository"

    @property
    def lock(self) -> Path:
        return self.folder / "lock"


def start(
    home: Home, files: TritonFiles, ports: Ports
) -> tuple[StackState, subprocess.Popen[bytes]]:
    """Start Triton in explicit mode with no model, and note it in the state file.

    The log of an earlier run is kept as ``triton.log.1``.
    """
    ports = choose_ports(ports)
    home.repository.mkdir(parents=True, exist_ok=True)
    if home.log.exists():
        home.log.replace(home.log.with_suffix(".log.1"))
    shm_prefix = f"gref_{os.getpid()}_{time.time_ns()}"
    command = server_command(
        files.binary, home.repository, assemble_backends(files, home.folder / "backends"), ports
    )
    command.append(f"--backend-config=python,shm-region-prefix-name={shm_prefix}")
    with home.log.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=server_environment(files),
            start_new_session=True,  # a Ctrl-C meant for the caller does not stop the server
        )
    state = StackState(
        pid=process.pid,
        start_ticks=start_ticks(process.pid) or 0,
        ports=ports,
        binary=str(files.binary),
        repository=str(home.repository),
        log=str(home.log),
        shm_prefix=shm_prefix,
    )
    staging = home.state.with_suffix(".tmp")
    write_json(staging, state)
    staging.replace(home.state)
    return state, process


def server_command(binary: Path, repository: Path, backends: Path, ports: Ports) -> list[str]:
    """tritonserver's arguments: explicit control, strict configurations, loopback only."""
    return [
        str(binary),
        f"--model-repository={repository}",
        f"--backend-directory={backends}",
        "--model-control-mode=explicit",
        "--disable-auto-complete-config",
        "--strict-readiness=true",
        "--exit-timeout-secs=5",
        f"--http-address={LOCALHOST}",
        f"--http-port={ports.http}",
        f"--grpc-address={LOCALHOST}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-address={LOCALHOST}",
        f"--metrics-port={ports.metrics}",
        "--allow-gpu-metrics=false",
        # Clients ping idle connections (handlers/rerank_base.py); the default: once in 5 minutes.
        "--grpc-keepalive-permit-without-calls=1",
        "--grpc-http2-min-recv-ping-interval-without-data=5000",
    ]


def choose_ports(ports: Ports) -> Ports:
    """Free ports in place of zeros.

    Raises:
        StackError: a port that was asked for is taken.
    """
    chosen: dict[str, int] = {}
    held: list[socket.socket] = []  # all at once, so that no port is handed out twice
    try:
        for name in ("http", "grpc", "metrics"):
            wanted = getattr(ports, name)
            held.append(socket.socket())
            held[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                held[-1].bind((LOCALHOST, wanted))
            except (OSError, OverflowError) as error:
                raise StackError(
                    f"{name} port {wanted} cannot be used: {error}; "
                    f"name another with --{name}-port, or 0 for any free one"
                ) from error
            chosen[name] = held[-1].getsockname()[1]
    finally:
        for one in held:
            one.close()
    return Ports(**chosen)


def read_state(home: Home) -> StackState | None:
    return read_json(home.state, StackState) if home.state.exists() else None


def is_alive(state: StackState) -> bool:
    """Whether the very process of the state file still runs."""
    return start_ticks(state.pid) == state.start_ticks


def start_ticks(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None if it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
    return None if fields[0] in "ZX" else int(fields[19])


def descendants(pid: int) -> list[int]:
    """Processes that a process started, and those that they did: Triton's engines."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def stop(state: StackState, process: subprocess.Popen[bytes] | None, wait_s: float) -> None:
    """End the process of the state file: politely, then after ``wait_s`` by force."""
    if is_alive(state):
        os.kill(state.pid, signal.SIGTERM)
        if not _ended(state, process, wait_s):
            os.killpg(state.pid, signal.SIGKILL)  # it leads a group of its own, with its stubs
            _ended(state, process, wait_s)
    if process is not None:
        process.poll()  # reap
    # A server that was killed leaves its shared memory behind.
    for region in Path("/dev/shm").glob(f"{state.shm_prefix}*"):  # noqa: S108
        region.unlink(missing_ok=True)


def _ended(state: StackState, process: subprocess.Popen[bytes] | None, wait_s: float) -> bool:
    give_up = time.monotonic() + wait_s
    while time.monotonic() < give_up:
        if process is not None:
            process.poll()
        if not is_alive(state):
            return True
        time.sleep(_POLL_S)
    return False


def log_tail(log: Path, lines: int = 25) -> str:
    """The last lines of a log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 200 * lines))
            text = file.read().decode(errors="replace")
    except OSError as error:
        return f"(no log: {error})"
    return "\n".join(text.splitlines()[-lines:])
