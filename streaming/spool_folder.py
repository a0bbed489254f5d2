"""Which folder of a spool belongs to which process: several workers may name the same spool.

``spool/000``, ``spool/001`` and so on; the holder of the lock of a folder owns it. A process that
starts takes the first free one, and over what processes that are gone left in the others.
"""

from __future__ import annotations

import fcntl
import itertools
import os
from pathlib import Path

from streaming.spool import SUFFIX, segments_of


class SpoolFolder:
    """A folder that this process owns until ``release``.

    Attributes:
        path: where the segments go.
    """

    def __init__(self, root: Path) -> None:
        """Take the first free folder of a spool, and over what the dead left in the others.

        Raises:
            OSError: the spool cannot be written to.
        """
        for number in itertools.count():
            self.path = root / f"{number:03d}"
            self.path.mkdir(parents=True, exist_ok=True)
            lock = _lock(self.path)
            if lock is not None:
                self._lock: int | None = lock
                break
        try:
            self._adopt(root)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give the folder up; also what a forked child must do with what it inherited."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _adopt(self, root: Path) -> None:
        """Move the segments of folders without an owner behind the own ones, in their order."""
        for folder in sorted(root.iterdir()):
            if folder == self.path or not folder.name.isdigit() or not segments_of(folder):
                continue
            lock = _lock(folder)
            if lock is None:
                continue
            try:
                own = segments_of(self.path)
                number = int(own[-1].stem) + 1 if own else 0
                for offset, segment in enumerate(segments_of(folder)):
                    segment.rename(self.path / f"{number + offset:012d}{SUFFIX}")
            finally:
                os.close(lock)


def _lock(folder: Path) -> int | None:
    """The locked file of a folder, None if another holder has it. The kernel frees it at death."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
