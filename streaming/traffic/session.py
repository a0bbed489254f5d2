"""One stretch of traffic from the first request to the last message."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from contracts.events import Event
from streaming.traffic.faults import Message, Outbox
from streaming.traffic.pace import EventClock, Pace
from streaming.traffic.ranking_server import RankingServer
from streaming.traffic.tally import Tally, TrafficSummary
from streaming.traffic.users import Users

#: Without an end in sight, drift and draws are planned for so many requests.
FOREVER = 1 << 40


class Sink(Protocol):
    """Where messages go."""

    def send(self, event: Event) -> object:
        """Send an event; never blocks for the broker's sake."""
        ...

    def send_raw(self, topic: str, key: str, raw: bytes) -> object:
        """Send bytes that are no event."""
        ...


@dataclass(frozen=True)
class Length:
    """How long it runs: so many requests, so many seconds, or whichever ends first."""

    requests: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.requests is None and self.seconds is None:
            raise ValueError("traffic without an end; give a number of requests, or seconds")
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise ValueError(f"seconds is {self.seconds}; allowed: above 0, and finite")


def run_traffic(
    users: Users,
    server: RankingServer,
    outbox: Outbox,
    sink: Sink | None,
    length: Length,
    clock: EventClock,
    pace: Pace,
    *,
    batch: int = 1,
    on_requests: Callable[[int], None] = lambda _: None,
) -> TrafficSummary:
    """Let users ask, see, and act; send what they do.

    Args:
        sink: None sends nothing: what is served is measured, and leaves no trace.
        batch: requests in one call of the client; 1 is what a ranking server does.
        on_requests: told the number of requests so far.
    """
    began, tally = time.monotonic(), Tally()
    visits = users.visits(length.requests or FOREVER)
    while taken := list(islice(visits, batch)):
        pace.wait_for(taken[0].index)
        if taken[0].index and time.monotonic() - began > (length.seconds or float("inf")):
            break
        times = [clock.at(visit.index) for visit in taken]
        _send(outbox.ready(times[0]), sink)
        for visit, (result, exposure) in zip(taken, server.show(taken, times)):
            acts = users.act(visit, exposure)
            events: list[Event] = [exposure, *acts]
            for event in events:
                outbox.put(event, exposure.time)
            tally.add(visit, result, exposure, [act.kind for act in acts])
        on_requests(taken[-1].index + 1)
    _send(outbox.rest(), sink)
    return tally.summary(time.monotonic() - began, outbox.sent, outbox.lost)


def _send(messages: Iterator[Message], sink: Sink | None) -> None:
    for message in messages:
        if sink is None:
            continue
        if message.event is None:
            sink.send_raw(message.topic, message.key, message.raw)
        else:
            sink.send(message.event)
