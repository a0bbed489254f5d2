"""The routing file as a client sees it: read again ten times a second, the last good one kept.

A thread of its own reads the file, so that no request ever waits for a disk, and a routing changes
although no request comes. What is in force is one attribute: a request reads it once, and is
served by that routing to its end. Neither the file's times nor the wall clock decide anything: the
content is read and compared, which sees a renamed file, Kubernetes' swap of a link and a file
written in place alike.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import weakref
from pathlib import Path

from contracts.assignment import Router
from contracts.reading import ContractError, decode_json
from contracts.routing import Routing
from handlers.routing_metrics import Reason, RoutingMetrics, default_routing_metrics

#: Between two looks at the file.
INTERVAL_S = 0.1
#: A larger file is a mistake: a hundred experiments need less than a tenth.
MAX_BYTES = 4 << 20

_log = logging.getLogger(__name__)


class RoutingFile:
    """Follows a routing file. Threads may share it; close it.

    Attributes:
        current: the routing in force. Reading it is all that a request does.
    """

    current: Router

    def __init__(
        self,
        path: str | Path,
        *,
        default_release: str | None = None,
        interval_s: float = INTERVAL_S,
        metrics: RoutingMetrics | None = None,
    ) -> None:
        """Read the file and begin to follow it.

        Args:
            default_release: the champion while there is no file that can be taken; without it that
                is an error here. Later it never is.

        Raises:
            ContractError: the file cannot be read or is no routing; the message names the field.
        """
        self.path = Path(path)
        self._interval_s = interval_s
        self._metrics = metrics or default_routing_metrics()
        self._sha = ""
        #: What was read last, or why it could not be: each is looked at, and counted, once.
        self._seen: bytes | str | None = None
        error = self._check()
        if error is not None:
            if default_release is None:
                raise error
            self.current = Router(Routing(champion=default_release))
        self._start()
        _open_files.add(self)

    @property
    def sha(self) -> str:
        """The first 12 digits of the SHA-256 of the file in force; "" by default_release."""
        return self._sha

    def refresh(self, timeout_s: float) -> Router:
        """The routing by a look at the file that begins now; the one in force if that takes longer.

        It waits, though never for the disk itself: not for an event loop's thread.
        """
        with self._looks:
            wanted = self._begun + 1
            self._wake.set()
            self._looks.wait_for(lambda: self._done >= wanted, timeout_s)
        return self.current

    def close(self) -> None:
        """Follow the file no longer; what is in force stays so."""
        _open_files.discard(self)
        self._closed = True
        self._wake.set()
        self._thread.join(timeout=1.0)  # no longer, should a disk hang

    def _start(self) -> None:
        """Start the thread, with locks of its own: those of a parent process may be held."""
        self._closed = False
        self._wake = threading.Event()
        self._looks = threading.Condition()
        self._begun = self._done = 0
        self._thread = threading.Thread(target=self._follow, name="gref-routing", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while not self._closed:
            self._wake.wait(self._interval_s)  # by the monotonic clock
            self._wake.clear()
            with self._looks:
                self._begun += 1
            try:
                self._check()
            except Exception:  # whatever it is, the next look may succeed
                _log.exception("routing %s: cannot be followed", self.path)
            with self._looks:
                self._done = self._begun
                self._looks.notify_all()

    def _check(self) -> ContractError | None:
        """Take the file if it is new and good; else say what is wrong with it."""
        try:
            raw = self._read()
        except FileNotFoundError:
            return self._refuse("missing", "missing", f"{self.path}: no such file")
        except OSError as error:
            return self._refuse("unreadable", str(error), f"{self.path}: cannot be read: {error}")
        if raw == self._seen:
            return None
        try:
            if len(raw) > MAX_BYTES:
                raise ContractError(f"{self.path}: larger than {MAX_BYTES:,} bytes")
            router = Router(decode_json(raw, Routing, str(self.path)))
        except ContractError as error:
            return self._refuse("invalid", raw, str(error))
        before, self._sha = self._sha, hashlib.sha256(raw).hexdigest()[:12]
        self._seen = raw
        self.current = router
        self._metrics.loaded(self._sha, before)
        self._metrics.stale(False)
        _log.info("routing %s: %s is in force", self.path, self._sha)
        return None

    def _read(self) -> bytes:
        with self.path.open("rb") as file:
            return file.read(MAX_BYTES + 1)

    def _refuse(self, reason: Reason, seen: bytes | str, why: str) -> ContractError:
        if seen != self._seen:
            self._seen = seen
            self._metrics.count_error(reason)
            self._metrics.stale(True)
            _log.warning("%s; %s stays in force", why, self._sha or "the default release")
        return ContractError(why)


#: Those that a forked process must follow with a thread of its own: threads do not survive a fork.
_open_files: weakref.WeakSet[RoutingFile] = weakref.WeakSet()


def _follow_in_child() -> None:
    for file in list(_open_files):
        file._start()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_follow_in_child)
