"""The traffic's clocks, and what the command line makes of words."""

from __future__ import annotations

import pytest

from streaming.traffic.options import parse_drift, parse_span
from streaming.traffic.pace import EventClock, Pace, now_ms
from streaming.traffic.session import Length


def test_requests_lie_evenly_in_their_span() -> None:
    clock = EventClock(count=4, span_ms=8000, end_ms=100_000)
    assert [clock.at(index) for index in range(4)] == [92_000, 94_000, 96_000, 98_000]
    assert clock.end_ms == 100_000


def test_without_a_span_it_is_the_wall_clock() -> None:
    clock, before = EventClock(), now_ms()
    assert before <= clock.at(5) <= now_ms()
    assert clock.end_ms is None
    with pytest.raises(ValueError, match="needs a number of requests"):
        EventClock(span_ms=10)


class Time:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now, self.slept = 100.0, []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_pace_keeps_to_the_rate_and_catches_up() -> None:
    time = Time()
    pace = Pace(10.0, time, time.sleep)
    for index in range(4):
        pace.wait_for(index)
    assert time.now == pytest.approx(100.3)
    time.now += 5.0  # something was slow: what was missed comes at once
    slept = len(time.slept)
    for index in range(4, 50):
        pace.wait_for(index)
    assert len(time.slept) == slept
    unlimited = Pace(None, time, time.sleep)
    unlimited.wait_for(10_000)
    assert len(time.slept) == slept


@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf"), float("nan")])
def test_impossible_rates_are_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="rate is"):
        Pace(rate)


def test_spans_of_time() -> None:
    texts = ("250ms", "90s", "30m", "1.5h", "2d", None)
    found = [parse_span(text) for text in texts]
    assert found == [250, 90_000, 1_800_000, 5_400_000, 172_800_000, None]
    for wrong in ("", "5", "-3s", "1 h", "2w", "1h30m"):
        with pytest.raises(ValueError, match="is no span of time"):
            parse_span(wrong)


def test_drift_is_two_shares_and_needs_a_last_request() -> None:
    ten = Length(requests=10)
    assert parse_drift("0..1", ten) == (0.0, 1.0)
    assert parse_drift("0.25..0.75", ten) == (0.25, 0.75)
    assert parse_drift("1..0", ten) == (1.0, 0.0), "tastes may come back"
    assert parse_drift(None, ten) is None
    assert parse_drift("0.5..0.5", Length(seconds=1)) == (0.5, 0.5)
    for wrong in ("1", "0..2", "-1..0", "a..b", "0...1", "..1", "0-1"):
        with pytest.raises(ValueError, match=r"FROM\.\.TO"):
            parse_drift(wrong, ten)
    with pytest.raises(ValueError, match="needs --requests"):
        parse_drift("0..1", Length(seconds=1))
    with pytest.raises(ValueError, match="without an end"):
        Length()
