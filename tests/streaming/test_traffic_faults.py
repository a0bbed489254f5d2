"""Faults: as many as asked for, each with the fate that it is said to have."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.events import Exposure, FeedbackEvent, decode_exposure, decode_feedback, encode_event
from contracts.reading import ContractError
from contracts.slates import Candidate
from streaming.traffic.faults import BREAKERS, FaultSettings, Message, Outbox

START, STEP = 1_750_000_000_000, 5_000
LATE_BY, DISORDER = 20 * 60_000, 30_000


def exposure(index: int) -> Exposure:
    return Exposure(
        request_id=f"q{index}",
        user="u1",
        time=START + STEP * index,
        candidates=(Candidate(item="a"), Candidate(item="b")),
        exposed=(1, 0),
    )


def act(index: int) -> FeedbackEvent:
    return FeedbackEvent(
        event_id=f"q{index}/0/click",
        request_id=f"q{index}",
        item="b",
        kind="click",
        value=1.0,
        time=START + STEP * index + 1000,
    )


def traffic(faults: FaultSettings, count: int, known_end: bool = True) -> tuple[Outbox, list]:
    """Send ``count`` exposures with an act each; messages with the time they were sent at."""
    until = START + STEP * count
    outbox, sent = Outbox(faults, until if known_end else None), []
    for index in range(count):
        now = START + STEP * index
        shown = exposure(index)
        outbox.put(shown, shown.time)
        outbox.put(act(index), shown.time)
        sent += [(now, message) for message in outbox.ready(now)]
    sent += [(until, message) for message in outbox.rest()]
    assert not len(outbox)
    return outbox, sent


shares = st.floats(0, 1)


@given(shares, shares, shares, shares, st.integers(0, 99), st.booleans())
def test_no_event_is_lost_and_every_fate_is_true(
    late: float, duplicate: float, malformed: float, disorder: float, seed: int, known_end: bool
) -> None:
    faults = FaultSettings(
        late=late, duplicate=duplicate, malformed=malformed, out_of_order=disorder, seed=seed
    )
    outbox, sent = traffic(faults, 300, known_end)
    originals = Counter(
        (type(m.event), m.event.request_id) for _, m in sent if m.fate in ("kept", "late")
    )
    assert originals == {
        (kind, f"q{i}"): 1 for kind in (Exposure, FeedbackEvent) for i in range(300)
    }
    by_fate = Counter(message.fate for _, message in sent)
    counted = Counter(outbox.sent)
    counted["late"] += counted.pop("early", 0)
    counted.pop("out_of_order", 0)
    assert +counted == +by_fate
    for now, message in sent:
        check_fate(now, message)
    assert [m.due for _, m in sent] == sorted(m.due for _, m in sent), "in the order they are due"
    if known_end:
        assert not outbox.sent["early"]


def check_fate(now: int, message: Message) -> None:
    event = message.event
    if message.fate == "malformed":
        assert event is None
        for decode in (decode_exposure, decode_feedback):
            with pytest.raises(ContractError):
                decode(message.raw)
        return
    assert event is not None
    delay = message.due - event.time
    if message.fate == "late":
        assert isinstance(event, FeedbackEvent)
        assert message.due == event.time - 1000 + LATE_BY
    else:
        assert 0 <= delay <= DISORDER
    assert now >= message.due or now == START + STEP * 300


@pytest.mark.parametrize("name", ["late", "duplicate", "malformed", "out_of_order"])
def test_as_many_as_asked_for(name: str) -> None:
    outbox, _ = traffic(FaultSettings(**{name: 0.25, "seed": 4}), 4000)
    # Feedback of the last 20 minutes of event time cannot be late within the traffic.
    population = 4000 - LATE_BY // STEP if name == "late" else 8000
    expected, spread = 0.25 * population, (0.25 * 0.75 * population) ** 0.5
    assert abs(outbox.sent[name] - expected) < 4.5 * spread


def test_without_faults_everything_leaves_in_order_and_once() -> None:
    outbox, sent = traffic(FaultSettings(), 50)
    assert outbox.sent == {"kept": 100}
    assert [m.event.time for _, m in sent] == sorted(m.event.time for _, m in sent)


@pytest.mark.parametrize("breaker", BREAKERS)
@pytest.mark.parametrize("event", [exposure(1), act(1)])
def test_what_is_broken_cannot_be_read(breaker, event) -> None:  # type: ignore[no-untyped-def]
    decode = decode_exposure if isinstance(event, Exposure) else decode_feedback
    assert decode(encode_event(event)) == event
    with pytest.raises(ContractError):
        decode(breaker(event))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"late": 1.5}, "late is 1.5; allowed: a share, 0 to 1"),
        ({"duplicate": -0.1}, "duplicate is -0.1"),
        ({"malformed": float("nan")}, "malformed is nan"),
        ({"disorder_ms": 5, "late_by_ms": 4}, "disorder_ms is 5; allowed: 0 to late_by_ms, 4"),
    ],
)
def test_impossible_faults_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FaultSettings(**changes)


def test_what_gets_lost_is_of_that_arm_and_of_the_same_users() -> None:
    """Of whole users, so that units are missing and not a few lists of each."""
    outbox = Outbox(FaultSettings(lost=0.2, lost_arm="try/fresh"))
    arms = ("", "try/control", "try/fresh", "other/x,try/fresh", "try/fresher")
    for index in range(5000):
        user, arm = f"u{index % 1000}", arms[index % 5]
        outbox.put(msgspec.structs.replace(exposure(index), user=user, arm=arm), START)
        outbox.put(act(index), START)
    events = [message.event for message in outbox.rest()]
    left = [event for event in events if isinstance(event, Exposure)]
    assert len(events) - len(left) == 5000, "what the users did is sent all the same"
    assert outbox.lost == 5000 - len(left)
    counts = Counter(event.arm for event in left)
    for arm in ("", "try/control", "try/fresher"):
        assert counts[arm] == 1000
    for arm in ("try/fresh", "other/x,try/fresh"):
        users = Counter(event.user for event in left if event.arm == arm)
        assert set(users.values()) == {5}, "a user's exposures are lost all or none"
        assert 200 * 0.2 - 25 < 200 - len(users) < 200 * 0.2 + 25


@pytest.mark.parametrize("arm", ["", "fresh", "try/"])
def test_what_gets_lost_needs_an_arm(arm: str) -> None:
    with pytest.raises(ValueError, match=r"lost_arm is .*; allowed: EXPERIMENT/ARM"):
        FaultSettings(lost=0.1, lost_arm=arm)
