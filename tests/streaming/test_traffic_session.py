"""A stretch of traffic against a ranking server that needs no Triton: everything is sent, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from contracts.events import Event, Exposure
from handlers.rerank_result import RerankResult
from streaming.traffic.faults import FaultSettings, Outbox
from streaming.traffic.pace import EventClock, Pace
from streaming.traffic.session import Length, run_traffic
from streaming.traffic.tally import TrafficSummary
from streaming.traffic.users import Users, Visit
from tests.sources.test_world import TINY
from training.sources.world import World

HOUR = 3_600_000
END = 1_750_000_000_000


ARMS = ("", "try/control", "try/fresh")


class Reversed:
    """Shows the last six of the candidates; every tenth request is a fallback."""

    def show(
        self, visits: Sequence[Visit], times: Sequence[int]
    ) -> list[tuple[RerankResult, Exposure]]:
        return [self._one(visit, time) for visit, time in zip(visits, times)]

    def _one(self, visit: Visit, time: int) -> tuple[RerankResult, Exposure]:
        fallback = "deadline" if visit.index % 10 == 0 else None
        order = tuple(range(6)) if fallback else (7, 6, 5, 4, 3, 2)
        request = visit.request
        result = RerankResult(
            request_id=request.request_id,
            items=tuple(request.candidates[i].item for i in order),
            indices=order,
            log_prob=None,
            release="r0001",
            fallback=fallback,  # type: ignore[arg-type]
            error=fallback,
            passes=None,
            latency_ms=float(visit.index),
        )
        exposure = Exposure(
            request_id=request.request_id,
            user=request.user,
            time=time,
            candidates=request.candidates,
            exposed=order,
            release="r0001",
            arm=ARMS[visit.index % 3],
            fallback=fallback or "",
        )
        return result, exposure


class Box:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.raw: list[bytes] = []

    def send(self, event: Event) -> None:
        self.events.append(event)

    def send_raw(self, topic: str, key: str, raw: bytes) -> None:
        self.raw.append(raw)


def traffic(
    requests: int, batch: int = 1, faults: FaultSettings | None = None, drift=None
) -> tuple[TrafficSummary, Box]:  # type: ignore[no-untyped-def]
    box, clock = Box(), EventClock(requests, HOUR, END)
    summary = run_traffic(
        Users(World(TINY), seed=9, drift=drift),
        Reversed(),  # type: ignore[arg-type]
        Outbox(faults or FaultSettings(), clock.end_ms),
        box,
        Length(requests=requests),
        clock,
        Pace(None),
        batch=batch,
    )
    return summary, box


def test_the_summary_is_the_truth_of_what_was_shown() -> None:
    summary, box = traffic(400)
    visits = list(Users(World(TINY), seed=9).visits(400))
    shown = [v.true_clicks(range(6) if v.index % 10 == 0 else (7, 6, 5, 4, 3, 2)) for v in visits]
    given = [v.true_clicks(range(6)) for v in visits]
    assert summary.true_shown == pytest.approx(np.mean(shown))
    assert summary.true_given == pytest.approx(np.mean(given))
    assert summary.gain == pytest.approx(np.mean(shown) - np.mean(given))
    assert summary.gain < 0, "the last candidates are worse"
    assert summary.fallbacks == {"deadline": 40}
    assert summary.releases == {"r0001": 400}
    assert sum(s.requests for s in summary.stretches) == 400
    assert summary.p50_ms == pytest.approx(199.5)
    exposures = [event for event in box.events if isinstance(event, Exposure)]
    acts = [event for event in box.events if not isinstance(event, Exposure)]
    assert [event.request_id for event in exposures] == [v.request.request_id for v in visits]
    assert sum(summary.feedback.values()) == len(acts)
    assert summary.sent == {"kept": len(box.events)}
    assert set(summary.arms) == set(ARMS)
    for number, arm in enumerate(ARMS):
        total, own = summary.arms[arm], slice(number, None, 3)
        assert total.requests == len(shown[own])
        assert total.users == len({visit.user for visit in visits[own]})
        assert total.shown == pytest.approx(np.mean(shown[own]))
        assert total.given == pytest.approx(np.mean(given[own]))


def test_exposures_that_are_lost_are_still_in_the_truth() -> None:
    summary, box = traffic(400, faults=FaultSettings(lost=0.5, lost_arm="try/fresh"))
    left = [event for event in box.events if isinstance(event, Exposure)]
    assert summary.lost == 400 - len(left) > 0
    assert summary.sent == {"kept": len(box.events)}
    assert summary.arms == traffic(400)[0].arms
    assert Counter(one.arm for one in left)["try/control"] == summary.arms["try/control"].requests


def test_calls_of_many_send_the_same_as_calls_of_one() -> None:
    def ids(box: Box) -> Counter[tuple[str, ...]]:
        return Counter(
            (e.request_id, *((e.event_id,) if not isinstance(e, Exposure) else ()))
            for e in box.events
        )

    assert ids(traffic(100, batch=1)[1]) == ids(traffic(100, batch=16)[1])


def test_with_faults_every_event_still_leaves_and_is_counted() -> None:
    faults = FaultSettings(late=0.1, duplicate=0.2, malformed=0.1, out_of_order=0.3)
    (summary, box), (_, plain) = traffic(400, faults=faults), traffic(400)
    assert len(box.raw) == summary.sent["malformed"] > 0
    assert len(box.events) == len(plain.events) + summary.sent["duplicate"]
    assert summary.sent["kept"] + summary.sent["late"] == len(plain.events)


def test_drift_shows_in_the_stretches() -> None:
    summary, _ = traffic(2000, drift=(0.0, 1.0))
    drifts = [s.drift for s in summary.stretches]
    assert drifts == sorted(drifts)
    assert drifts[0] < 0.1
    assert drifts[-1] > 0.9
    assert [s.time for s in summary.stretches] == sorted(s.time for s in summary.stretches)


def test_it_ends_with_the_seconds() -> None:
    summary = run_traffic(
        Users(World(TINY), seed=9),
        Reversed(),  # type: ignore[arg-type]
        Outbox(FaultSettings()),
        None,
        Length(seconds=0.2),
        EventClock(),
        Pace(200.0),
    )
    assert 1 <= summary.requests <= 45
