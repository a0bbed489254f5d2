"""Who may publish, and under which name: a lock on the releases folder and the next free name."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contracts.releases import RELEASE_NAME

LOCK_FILE = ".publish.lock"
#: Folder with the manifests of releases that were pruned: lineage goes through them.
PRUNED = ".pruned"
_POLL_S = 0.1


class PublishError(RuntimeError):
    """The folder of releases could not be changed; the message says why and what to do."""


@contextmanager
def publisher_lock(releases: Path, wait_s: float) -> Iterator[int]:
    """Hold a folder for one that changes it; yields the lock file's descriptor.

    The kernel lets go of the lock when its holder dies, however it dies. The file stays, for it
    also remembers the last name that was given out.

    Raises:
        PublishError: another publisher held it for all of ``wait_s``.
    """
    descriptor = os.open(releases / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        give_up = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= give_up:
                    raise PublishError(
                        f"{releases}: another publisher is at work (waited {wait_s:g} s); "
                        "nothing was changed, try again when it is done"
                    ) from None
                time.sleep(_POLL_S)
        yield descriptor
    finally:
        os.close(descriptor)


def next_name(releases: Path, descriptor: int) -> str:
    """The next release name. The caller holds the lock.

    A name is never given twice, even where the newest release was deleted: logs, metrics and
    caches know a release by its name alone.
    """
    remembered = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
    pruned = [path.stem for path in (releases / PRUNED).glob("*.json")]
    taken = [path.name for path in releases.iterdir()] + pruned + [remembered]
    number = 1 + max((int(name[1:]) for name in taken if RELEASE_NAME.match(name)), default=0)
    return f"r{number:04d}"


def remember_name(descriptor: int, name: str) -> None:
    """Note that ``name`` is given out, before it is used."""
    os.pwrite(descriptor, f"{name}\n".encode(), 0)
    os.fsync(descriptor)
