"""Two locks beside routing.json, so that a rollback never waits for a release that is loading.

``work`` is held by a rollout for all of its time: loading, switching, draining, unloading. One at
a time. ``switch`` is held for milliseconds, by whoever changes routing.json, the champion and the
manifests, or unloads a release. A rollback switches without ``work``.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from contracts.reading import ContractError

_POLL_S = 0.02
#: A switch is a few small files; who holds its lock for longer than this is in trouble.
SWITCH_WAIT_S = 30.0


class BusyError(ContractError):
    """Another rollout is at work; nothing was changed."""


@contextmanager
def locked(routing: Path, kind: Literal["work", "switch"], wait_s: float) -> Iterator[None]:
    """Hold one of the two locks of a routing file.

    The kernel lets go when the holder dies, however it dies; the file stays and names the last one.

    Raises:
        BusyError: another held it for all of ``wait_s``; the message names its process.
    """
    routing.parent.mkdir(parents=True, exist_ok=True)
    path = routing.with_name(f".{routing.name}.{kind}.lock")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        give_up = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= give_up:
                    holder = os.pread(descriptor, 512, 0).decode(errors="replace").strip()
                    raise BusyError(
                        f"{routing}: another rollout is at work ({holder or 'just begun'}; "
                        f"waited {wait_s:g} s); nothing was changed, try again when it is done"
                    ) from None
                time.sleep(_POLL_S)
        with suppress(OSError):  # a full disk must not stand in the way of a rollback
            os.ftruncate(descriptor, 0)
            told = f"process {os.getpid()} of {socket.gethostname()}\n"
            os.pwrite(descriptor, told.encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def work_if_free(routing: Path) -> Iterator[bool]:
    """The ``work`` lock where nobody has it; yields whether it is held."""
    try:
        lock = locked(routing, "work", 0.0)
        lock.__enter__()
    except BusyError:
        yield False
        return
    try:
        yield True
    finally:
        lock.__exit__(None, None, None)
