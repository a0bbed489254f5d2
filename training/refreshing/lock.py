"""One refresh at a time in a folder of releases."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from contracts.reading import ContractError

LOCK_FILE = ".refresh.lock"


@contextmanager
def refresh_lock(releases: Path) -> Iterator[None]:
    """Hold the folder for one refresh.

    The kernel lets go when the holder dies, however it dies; the file stays and names the last one.

    Raises:
        ContractError: another refresh is at work; the message says which.
    """
    path = releases / LOCK_FILE
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 512, 0).decode(errors="replace").strip()
            raise ContractError(
                f"{releases}: another refresh is at work there ({holder or 'just begun'}); "
                "wait for it, or end it"
            ) from None
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        os.ftruncate(descriptor, 0)
        os.pwrite(
            descriptor, f"process {os.getpid()} of {socket.gethostname()}, {now}\n".encode(), 0
        )
        yield
    finally:
        os.close(descriptor)
