"""How many messages of a client are under way: the bound of the queue in front of a busy server.

The bound is the client's because Triton's own costs too much (docs/serving.md), and because only
the client can show another list at once. A server that answers C messages a second makes the last
of K that are under way wait K / C: the bound keeps that below the deadline, so that what is
answered is answered in time, instead of everything a little too late.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from handlers.rerank_result import RerankError


class InFlight:
    """Counts messages under way, of all threads or tasks of a client."""

    def __init__(self, most: int) -> None:
        """
        Raises:
            ValueError: ``most`` is not positive.
        """
        if most < 1:
            raise ValueError(f"max_in_flight is {most}; allowed: 1 or more")
        self._most, self._count = most, 0
        self._lock = threading.Lock()

    def take(self) -> None:
        """One more is sent; ``release`` it when it has ended.

        Raises:
            RerankError: so many are under way already (``overloaded``).
        """
        with self._lock:
            if self._count >= self._most:
                raise RerankError(
                    "overloaded",
                    f"{self._count} messages are under way, the client's max_in_flight",
                )
            self._count += 1

    def release(self) -> None:
        with self._lock:
            self._count -= 1

    @contextmanager
    def one(self) -> Iterator[None]:
        """``take``, and ``release`` at the end."""
        self.take()
        try:
            yield
        finally:
            self.release()
