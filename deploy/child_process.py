"""Servers as children: they end with the process that started them, even if that is killed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from time import monotonic, sleep

from deploy.triton_install import StackError
from deploy.triton_process import LOCALHOST, log_tail

_POLL_S = 0.02
#: Linux ends a process of this kind when the thread that started it is gone (prctl, option 1).
#: It asks for that itself and then becomes the server; forking code in between stays out of here.
_LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""


def start_child(
    command: Sequence[str], log: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a server whose output is appended to ``log``; it ends with this process.

    Args:
        environment: added to this process's own.
    """
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]
    log.parent.mkdir(parents=True, exist_ok=True)

    def popen() -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                launcher,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,  # a Ctrl-C meant for the caller does not stop the server
            )

    return _starter(os.getpid()).submit(popen).result()


@lru_cache(maxsize=1)
def _starter(pid: int) -> ThreadPoolExecutor:
    """The one thread that starts children: it lives as long as the process, as they shall."""
    return ThreadPoolExecutor(1, f"children-of-{pid}")


def wait_answering(
    process: subprocess.Popen[bytes], log: Path, answers: Callable[[], bool], limit_s: float
) -> None:
    """Wait until a server answers.

    Raises:
        StackError: it ended, or did not answer in time; the message holds the end of its log.
    """
    give_up = monotonic() + limit_s
    while not answers():
        if process.poll() is not None:
            raise StackError(f"it ended with code {process.returncode}; {log}:\n{log_tail(log)}")
        if monotonic() > give_up:
            raise StackError(f"no answer within {limit_s:g} s; {log}:\n{log_tail(log)}")
        sleep(_POLL_S)


def stop_child(process: subprocess.Popen[bytes] | None, wait_s: float = 5.0) -> None:
    """End a child politely, then by force. Harmless when it has ended."""
    if process is None or process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(wait_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """A port of the loopback address that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((LOCALHOST, 0))
        port: int = probe.getsockname()[1]
        return port


def accepts(port: int) -> bool:
    """Whether somebody listens on a port of the loopback address."""
    try:
        socket.create_connection((LOCALHOST, port), timeout=1).close()
    except OSError:
        return False
    return True
