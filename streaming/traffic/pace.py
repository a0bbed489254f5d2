"""How fast traffic runs, and what time it says it is."""

from __future__ import annotations

import time
from collections.abc import Callable


def now_ms() -> int:
    """Wall-clock time in ms since the epoch."""
    return time.time_ns() // 1_000_000


class EventClock:
    """Event time of requests: the wall clock, or evenly over a span that passes in no time.

    Hours of traffic can so be sent in seconds; the consumer works on event time and does not mind.
    """

    def __init__(
        self, count: int | None = None, span_ms: int | None = None, end_ms: int | None = None
    ) -> None:
        """Make it.

        Args:
            count, span_ms: so many requests lie evenly in a span; without a span, the wall clock.
            end_ms: where the span ends; now, if left.

        Raises:
            ValueError: a span without a number of requests.
        """
        if span_ms is not None and count is None:
            raise ValueError("a span of event time needs a number of requests to lie in it")
        self._count, self._span = count or 1, span_ms
        self.end_ms = None if span_ms is None else now_ms() if end_ms is None else end_ms

    def at(self, index: int) -> int:
        """Event time of request ``index`` (from 0) in ms."""
        if self._span is None or self.end_ms is None:
            return now_ms()
        return self.end_ms - self._span + index * self._span // self._count


class Pace:
    """Keeps to a rate of requests; what is missed is caught up with, not forgotten."""

    def __init__(
        self,
        rate: float | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``rate`` in requests a second; None is as fast as it goes."""
        if rate is not None and not 0 < rate < float("inf"):
            raise ValueError(f"rate is {rate}; allowed: above 0, and finite")
        self._rate, self._clock, self._sleep = rate, clock, sleep
        self._began = clock()

    def wait_for(self, index: int) -> None:
        """Return when request ``index`` (from 0) is due."""
        if self._rate is not None:
            left = self._began + index / self._rate - self._clock()
            if left > 0:
                self._sleep(left)
