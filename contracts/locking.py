"""Work that several processes may ask for, and one of them does."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def one_at_a_time(file: Path) -> Iterator[None]:
    """Wait for whoever holds ``file``, and hold it for the block; its folder is made.

    The kernel lets go when the holder dies, however it dies. Whoever waited finds what the other
    has made: look again inside.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
