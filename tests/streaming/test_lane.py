"""Rules of a lane, one by one; what holds in general is in test_lane_properties.py."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.events import encode_event
from contracts.slates import Candidate
from streaming.consumer.dead_letters import REASONS
from streaming.consumer.lane import Lane
from streaming.consumer.pausing import pauses
from streaming.consumer.watermark import EXPOSURE, FEEDBACK, Watermark
from tests.streaming.lane_records import (
    LATENESS,
    NOW,
    SKEW,
    WINDOW,
    Record,
    act,
    exposure,
    lane,
    record,
    slate_of_closed,
)


def buried(one: Lane) -> list[str]:
    return [letter.reason for letter in one.dead]


def finish(one: Lane) -> Lane:
    """Both inputs are read to their end, and nothing comes for long."""
    one.ended(EXPOSURE, one.next[EXPOSURE], NOW)
    one.ended(FEEDBACK, one.next[FEEDBACK], NOW)
    one.quiet(NOW + 10_000)
    one.advance()
    return one


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "malformed"),
        (b"[]", "malformed"),
        (b'"\xff"', "malformed"),
        (b"[" * 100_000, "malformed"),
        (b"x" * (1 << 20) + b"x", "too_large"),
        (encode_event(act("q", 1, "e")), "malformed"),
        (encode_event(exposure("q", 1)).replace(b'"time":1', b'"time":true'), "malformed"),
        (encode_event(exposure("q", 1)).replace(b'"time":1', b'"time":1,"x":2'), "malformed"),
        (b'{"type":"exposure","version":7,"new":[]}', "unknown_version"),
        (encode_event(exposure("q", 1)).replace(b"1.5", b'"x"'), "feature_value"),
        (encode_event(exposure("q", 1)).replace(b'"red"', b"1.5"), "feature_value"),
        (encode_event(exposure("q", 1, user_features={"age": "old"})), "feature_value"),
        (encode_event(exposure("q", NOW + SKEW + 1)), "future"),
        (encode_event(exposure("q", 1, feature_spec_sha256="0")), "other_features"),
        (encode_event(exposure("other", 1)), "wrong_key"),
    ],
)
def test_exposures_that_are_refused(raw: bytes, reason: str) -> None:
    one = lane()
    one.exposures([Record(3, b"q", raw)], NOW)
    assert [(letter.reason, letter.offset, letter.value) for letter in one.dead] == [
        (reason, 3, raw)
    ]
    assert reason in REASONS
    assert one.next == [4, 0]
    assert not one.open


@pytest.mark.parametrize("value", [None, True, 3, "red"])
def test_categories_may_be_what_the_encoder_takes(value: Any) -> None:
    candidates = (Candidate(item="i0", features={"colour": value, "unknown": [1]}),)
    event = exposure("q", 1, candidates=candidates, exposed=(0,))
    one = lane()
    one.exposures([record(0, event)], NOW)
    assert buried(one) == ([] if "unknown" in event.candidates[0].features else ["malformed"])


def test_the_brokers_clock_judges_the_future_where_it_is_kept() -> None:
    event = exposure("q", 10_000)
    one = lane()
    kept = Record(0, b"q", encode_event(event), timestamp=5_000, timestamp_type=1)
    one.exposures([kept], NOW)  # long past by now, but it was sent too early
    assert buried(one) == ["future"]


def test_a_clock_ahead_closes_nothing_before_its_time() -> None:
    """An event within --max-skew counts, but the watermark stays behind the wall."""
    one = lane()
    one.exposures([record(0, exposure("ahead", NOW + SKEW))], NOW)
    one.feedback([record(0, act("ahead", NOW + SKEW, "e"))], NOW)
    one.advance()
    assert one.watermark == NOW - LATENESS


def test_latest_act_counts_and_zero_takes_back() -> None:
    one = lane()
    one.exposures([record(0, exposure("q", 1_000))], NOW)
    acts = [
        act("q", 1_020, "b", value=0.0),
        act("q", 1_010, "a", value=1.0),
        act("q", 1_020, "b", value=1.0),  # the same act again, saying something else
        act("q", 1_015, "c", kind="watch", value=3.0),
        act("q", 1_016, "d", kind="watch", value=0.0),
    ]
    one.feedback([record(at, event) for at, event in enumerate(acts)], NOW)
    (closed,) = finish(one).closed
    kept = [(it.kind, it.value, it.time) for it in slate_of_closed(closed).feedback]
    assert kept == [("watch", 0.0, 1_016)]
    assert one.counts["duplicates"] == 1


def test_bounds_of_the_window_belong_to_it() -> None:
    one = lane()
    one.exposures([record(0, exposure("q", 1_000))], NOW)
    times = [1_000 - LATENESS - 1, 1_000 - LATENESS, 1_000 + WINDOW, 1_000 + WINDOW + 1]
    one.feedback([record(at, act("q", time, f"e{at}")) for at, time in enumerate(times)], NOW)
    finish(one)
    assert [one.event.time for one in one.closed[0].acts] == times[1:3]
    assert buried(one) == ["early_feedback", "late_feedback"]


def test_an_input_that_is_behind_holds_the_watermark() -> None:
    clock = Watermark(lateness=10, idle_after=0)
    clock.seen(EXPOSURE, 1_000, NOW)
    assert clock.advance() == 0  # nobody knows what feedback there is
    clock.ended(FEEDBACK, NOW)
    assert clock.advance() == 990
    clock.seen(EXPOSURE, 5_000, NOW)
    assert clock.advance() == 990  # feedback may have come since its end was asked for
    clock.seen(FEEDBACK, 2_000, NOW)
    assert clock.advance() == 1_990


def test_an_input_at_its_end_is_waited_for_until_it_is_idle() -> None:
    clock = Watermark(lateness=10, idle_after=500)
    clock.seen(FEEDBACK, 400, NOW)
    clock.seen(EXPOSURE, 1_000, NOW)
    clock.ended(FEEDBACK, NOW)
    clock.ended(FEEDBACK, NOW + 499)
    assert clock.advance() == 390
    clock.not_ended(FEEDBACK)  # the broker went away: what it holds nobody knows
    clock.ended(FEEDBACK, NOW + 600)
    assert clock.advance() == 390
    clock.seen(FEEDBACK, 500, NOW + 700)  # there was some
    clock.ended(FEEDBACK, NOW + 800)
    clock.ended(FEEDBACK, NOW + 1_299)
    clock.quiet(NOW + 1_299)
    assert clock.advance() == 490
    clock.ended(FEEDBACK, NOW + 1_300)
    assert clock.advance() == 990


def test_quiet_time_goes_on_over_a_restart() -> None:
    clock = Watermark(lateness=10, value=1_990, wall=50_000, idle_after=0)
    clock.replayed(EXPOSURE, 1_500)
    clock.ended(EXPOSURE, 50_600)
    clock.quiet(50_650)
    assert clock.value == 1_990  # feedback may be on its way
    clock.ended(FEEDBACK, 50_600)
    clock.quiet(50_700)
    assert clock.value == 2_000 + 700 - 10


def test_the_input_ahead_waits_and_a_full_lane_stands_still() -> None:
    one = lane()
    one.exposures([record(0, exposure("q", 1_000))], NOW)
    one.feedback([record(0, act("q", 1_050, "e"))], NOW)
    assert pauses({0: one}, 1 << 30, 100) == (frozenset(), frozenset(), frozenset())
    assert pauses({0: one}, 1 << 30, 49).inputs == {(0, FEEDBACK)}
    # Half full, the input behind alone is read, for it moves the watermark.
    assert pauses({0: one}, one.held_bytes * 3 // 2, 100).inputs == {(0, FEEDBACK)}
    full = pauses({0: one}, one.held_bytes, 100)
    assert full.inputs == {(0, EXPOSURE), (0, FEEDBACK)}
    assert full.stuck == {0}
    finish(one)
    assert pauses({0: one}, one.held_bytes, 100).stuck == frozenset()  # a commit makes room


def test_a_closed_slate_that_cannot_be_written_takes_its_feedback_along() -> None:
    one = lane()
    one.exposures([record(0, exposure("q", 1_000))], NOW)
    one.feedback([record(0, act("q", 1_010, "e"))], NOW)
    finish(one)
    one.refuse_closed(one.closed[0], "a number too large")
    assert buried(one) == ["feature_value", "no_exposure"]
    assert one.held_bytes == 0


def test_replaying_keeps_what_the_last_commit_said() -> None:
    """Another lane's commit comes while this one reads again: it counts up, and says no more."""
    one = lane()
    one.exposures([record(at, exposure(f"q{at}", 1_000 + at)) for at in range(3)], NOW)
    said = one.fields(NOW)
    again = lane(said)
    again.exposures([record(0, exposure("q0", 1_000)), record(1, b"{")], NOW)
    assert again.replaying
    assert not again.has_news
    assert again.fields(NOW + 1) == said._replace(commits=2)
    again.commit_done(again.fields(NOW + 1))
    assert sorted(again.open) == ["q0"]
