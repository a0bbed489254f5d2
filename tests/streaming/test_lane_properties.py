"""Whatever is read when, and however often a lane is lost: the table is the same.

The oracle knows the whole log at once. It judges by the definitions of docs/streaming.md, has no
watermark, no state and no positions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from contracts.events import Event, Exposure, FeedbackEvent, latest
from contracts.slates import Slate
from streaming.consumer.lane import Lane, LaneFields
from tests.streaming.lane_records import (
    LATENESS,
    NOW,
    WINDOW,
    Record,
    act,
    exposure,
    lane,
    record,
    slate_of_closed,
)

REQUESTS = [f"q{index}" for index in range(5)]


@st.composite
def logs(draw: st.DrawFn) -> list[Event | bytes]:
    """Events in the order in which they are appended, none later than the lateness allows."""
    events: list[Event | bytes] = []
    greatest = 1_000
    for index in range(draw(st.integers(0, 40))):
        time = greatest + draw(
            st.integers(-LATENESS, 30) | st.sampled_from([-LATENESS, 0, WINDOW + 2 * LATENESS])
        )
        request = draw(st.sampled_from(REQUESTS)) + f"_{time // 250}"
        kind = draw(st.sampled_from(["exposure", "act", "act", "act", "again", "broken"]))
        if kind == "exposure":
            before = [
                one.time
                for one in events
                if isinstance(one, Exposure) and one.request_id == request
            ]
            # A second list under one id, shown later, may outlive the memory of the first.
            time = max(greatest - LATENESS, min([time, *before]))
            if all(time <= one for one in before):
                events.append(exposure(request, time))
        elif kind == "act":
            kind, value = draw(
                st.sampled_from([("click", 1.0), ("click", 0.0), ("watch", 2.5), ("watch", 0.0)])
            )
            item = draw(st.sampled_from(["i0", "i1", "i2"]))  # i2 is not shown
            name = draw(st.sampled_from([f"e{index}", "e"]))
            events.append(act(request, time, name, item=item, kind=kind, value=value))
        elif kind == "broken":
            events.append(draw(st.sampled_from([b"{", b'{"type": "feedback", "version": 2}'])))
        else:
            fresh = [one for one in events if not isinstance(one, bytes)]
            fresh = [one for one in fresh if one.time >= greatest - LATENESS]
            if fresh:
                events.append(draw(st.sampled_from(fresh)))
        if not isinstance(events[-1] if events else b"", bytes):
            greatest = max(greatest, events[-1].time)  # type: ignore[union-attr]
    return events


def split(events: list[Event | bytes]) -> tuple[list[Record], list[Record]]:
    """The two partitions: what is broken went to that of feedback."""
    sides: tuple[list[Record], list[Record]] = ([], [])
    for event in events:
        side = sides[0 if isinstance(event, Exposure) else 1]
        side.append(record(len(side), event))
    return sides


def expected(events: list[Event | bytes]) -> tuple[dict[str, set], Counter]:
    """Rows by request id as (item, kind, value, time), and offsets of dead letters."""
    shown: dict[str, Exposure] = {}
    dead: Counter = Counter()
    at = [0, 0]
    acts: list[tuple[int, FeedbackEvent]] = []
    for event in events:
        side = 0 if isinstance(event, Exposure) else 1
        offset = at[side]
        at[side] += 1
        if isinstance(event, bytes):
            dead[1, offset] += 1
        elif isinstance(event, FeedbackEvent):
            acts.append((offset, event))
        elif event.request_id not in shown:
            shown[event.request_id] = event
        elif event != shown[event.request_id]:
            dead[0, offset] += 1
    rows: dict[str, dict] = {name: {} for name in shown}
    names: set = set()
    for offset, event in acts:
        of = shown.get(event.request_id)
        in_time = of is not None and of.time - LATENESS <= event.time <= of.time + WINDOW
        if of is None or not in_time or event.item not in ("i0", "i1"):
            dead[1, offset] += 1
        elif (event.request_id, event.event_id) not in names:
            names.add((event.request_id, event.event_id))
            place = rows[event.request_id]
            key = (event.item, event.kind)
            place[key] = latest(event, place[key]) if key in place else event
    kept = {
        name: {
            (one.item, one.kind, one.value, one.time)
            for one in place.values()
            if one.kind == "watch" or one.value
        }
        for name, place in rows.items()
    }
    return kept, dead


class Table:
    """What is committed; a lane goes on from it, as a new owner would."""

    def __init__(self) -> None:
        self.rows: list[Slate] = []
        self.dead: list[tuple[int, int]] = []
        self.fields: LaneFields | None = None

    def commit(self, owner: Lane) -> None:
        fields = owner.fields(NOW)
        assert owner.has_news or owner.replaying or not (owner.closed or owner.dead)
        self.rows += [slate_of_closed(slate) for slate in owner.closed]
        self.dead += [(one.side, one.offset) for one in owner.letters]
        self.fields = fields
        owner.commit_done(fields)


def run(
    events: list[Event | bytes], steps: Iterable[tuple[str, int]], table: Table | None = None
) -> Table:
    """Append and read in the order of ``steps``, then read the rest and wait for all to close."""
    table, owner, appended = table or Table(), lane(), 0

    log = split(events)
    exposures = [isinstance(event, Exposure) for event in events]

    def end(side: int) -> int:
        shown = sum(exposures[:appended])
        return appended - shown if side else shown

    def read(side: int, count: int) -> None:
        batch = log[side][owner.next[side] : min(end(side), owner.next[side] + count)]
        (owner.feedback if side else owner.exposures)(batch, NOW)

    for step, count in steps:
        if step == "append":
            appended = min(len(events), appended + count)
        elif step == "exposures":
            read(0, count)
        elif step == "feedback":
            read(1, count)
        elif step == "end":
            for side in (0, 1):
                if owner.next[side] == end(side):
                    owner.ended(side, end(side), NOW)
        elif step == "advance":
            owner.advance()
        elif step == "commit":
            owner.advance()
            table.commit(owner)
        else:
            owner = lane(table.fields)
    appended = len(events)
    read(0, len(events))
    read(1, len(events))
    owner.ended(0, owner.next[0], NOW)
    owner.ended(1, owner.next[1], NOW)
    owner.advance()
    owner.quiet(NOW + 10_000)
    owner.advance()
    table.commit(owner)
    assert not owner.open
    assert not owner.waiting.count
    assert owner.held_bytes == 0
    return table


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["append", "append", "exposures", "feedback", "end", "advance", "commit", "crash"]
        ),
        st.integers(1, 15),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(logs(), STEPS)
@example([exposure("q", 100), act("q", 200, "e")], [("append", 1), ("exposures", 1), ("end", 1)])
def test_table_is_that_of_the_oracle(events: list[Event | bytes], steps: list) -> None:
    table = run(events, steps)
    rows, dead = expected(events)
    got = {
        slate.request_id: {
            (
                slate.candidates[slate.exposed[one.position]].item,
                one.kind,
                one.value,
                one.time,
            )
            for one in slate.feedback
        }
        for slate in table.rows
    }
    assert len(got) == len(table.rows), "a slate is in the table twice"
    assert got == rows
    assert Counter(table.dead) == dead


@settings(max_examples=100, deadline=None)
@given(logs(), STEPS)
def test_positions_do_not_go_back(events: list[Event | bytes], steps: list) -> None:
    """A new owner starts at the position: it reads again what is open, and no more."""
    seen: list[LaneFields] = []

    class Watching(Table):
        def commit(self, owner: Lane) -> None:
            super().commit(owner)
            if self.fields is not None and not owner.replaying:
                seen.append(self.fields)
                opened = [slate.offset for slate in owner.open.values()]
                assert self.fields.exposures_position == min(opened, default=owner.next[0])

    run(events, steps, Watching())
    for before, after in pairwise(seen):
        assert all(b >= a for a, b in zip(before[:6], after[:6]))
