"""The join of one lane: partition k of exposures and of feedback. Pure: no Kafka, no table.

An event is judged by event time alone, so that reading again after a crash judges it the same way.
With t the time of an exposure, f that of a feedback event, W the watermark, J the join window and
L the lateness:

- a slate closes when W > t + J + L;
- it takes feedback with t - L <= f <= t + J that comes before it closes;
- feedback that finds no such slate waits until W > f + L, and is a dead letter then.

The L in both is what makes a commit tell enough. Feedback that a closed slate took has
f + L <= t + J + L < W; feedback that still waits has f + L >= W. So whoever reads again from the
committed positions knows, for every offset below ``read``, whether it was dealt with: the open
slates and the waiting feedback come out as they were, and nothing is counted a second time.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from contracts.events import Exposure, decode_exposure
from streaming.consumer.dead_letters import DeadLetter, Reason, Refused
from streaming.consumer.intake import Intake, Record
from streaming.consumer.open_slates import Act, OpenSlate, Waiting
from streaming.consumer.watermark import EXPOSURE, FEEDBACK, Watermark

#: How many request ids of closed slates a lane remembers, to tell late feedback from unknown.
REMEMBERED = 50_000


class LaneFields(NamedTuple):
    """What a commit says of a lane; contracts.feedback_table.LANE_FIELDS in the same order."""

    commits: int
    exposures_position: int
    feedback_position: int
    exposures_read: int
    feedback_read: int
    watermark: int
    wall: int


class Lane:
    """Open slates, waiting feedback and positions of one lane.

    Attributes:
        partition: of both topics.
        next: the next offset to handle of exposures and of feedback.
        open: the open slates by request id, in the order of their offsets.
        waiting: feedback without an open slate that takes it.
        closed, dead: slates to write and events to refuse with the next commit.
        counts: what was counted since the lane was taken over: exposures, feedback, duplicates,
            late, and ``dead/REASON``.
        committed: the fields of the last commit; None before the first.
    """

    def __init__(
        self,
        partition: int,
        intake: Intake,
        join_window: int,
        lateness: int,
        committed: LaneFields | None = None,
        start: tuple[int, int] = (0, 0),
        idle_after: int = 0,
    ) -> None:
        """Take a lane over from its last commit, or begin it at ``start`` where there is none."""
        self.partition = partition
        self.committed = committed
        self.next = list(start)
        self._read = list(start)
        wall = watermark = 0
        if committed is not None:
            self.next = [committed.exposures_position, committed.feedback_position]
            self._read = [committed.exposures_read, committed.feedback_read]
            watermark, wall = committed.watermark, committed.wall
        self._last_positions: tuple[int, ...] = (*self.next, *self._read)
        self._taken_over_wall = wall
        self._replaying = self.next != self._read
        self.clock = Watermark(lateness, watermark, wall, idle_after=idle_after)
        self.open: dict[str, OpenSlate] = {}
        self.waiting = Waiting()
        self.closed: list[OpenSlate] = []
        self.dead: list[DeadLetter] = []
        self.counts: Counter[str] = Counter()
        self.bytes = 0
        self._intake = intake
        self._window, self._lateness = join_window, lateness
        self._closing: list[tuple[int, int, str]] = []
        self._expiring: list[tuple[int, int, str]] = []
        self._remembered: OrderedDict[str, int] = OrderedDict()

    @property
    def watermark(self) -> int:
        return self.clock.value

    @property
    def replaying(self) -> bool:
        """Whether the lane is still reading what the last owner had read."""
        return self._replaying

    @property
    def standing(self) -> str:
        """Where it reads on, and how far it was handled: what lies between is read again."""
        exposures, feedback = (
            f"{next_}, handled to {max(next_, read)}" for next_, read in zip(self.next, self._read)
        )
        return f"exposures from {exposures}; feedback from {feedback}"

    @property
    def held_bytes(self) -> int:
        """About what the lane's state takes in memory."""
        return self.bytes + self.waiting.bytes

    # -- events

    def exposures(self, records: Iterable[Record], now: int) -> None:
        """Handle records of the exposure topic, in the order of their offsets."""
        greatest = replayed = -1
        for record in records:
            self.next[EXPOSURE] = record.offset + 1
            new = record.offset >= self._read[EXPOSURE]
            try:
                exposure = self._intake.exposure(record, now if new else self._taken_over_wall)
            except Refused as refused:
                if new:
                    self._bury(refused.reason, refused.detail, EXPOSURE, record)
                continue
            if new:
                self.counts["exposures"] += 1
                greatest = max(greatest, exposure.time)
            else:
                replayed = max(replayed, exposure.time)
            self._expose(record, exposure, new)
        self._tell_clock(EXPOSURE, greatest, replayed, now)

    def feedback(self, records: Iterable[Record], now: int) -> None:
        """Handle records of the feedback topic, in the order of their offsets."""
        greatest = replayed = -1
        for record in records:
            self.next[FEEDBACK] = record.offset + 1
            new = record.offset >= self._read[FEEDBACK]
            try:
                event = self._intake.feedback(record, now if new else self._taken_over_wall)
            except Refused as refused:
                if new:
                    self._bury(refused.reason, refused.detail, FEEDBACK, record)
                continue
            if new:
                self.counts["feedback"] += 1
                greatest = max(greatest, event.time)
            else:
                replayed = max(replayed, event.time)
            assert record.value is not None
            act = Act(record.offset, record.key, record.value, event)
            slate = self.open.get(event.request_id)
            if slate is None or not self._match(slate, act):
                self._wait(act)
        self._tell_clock(FEEDBACK, greatest, replayed, now)

    def ended(self, side: int, position: int, now: int) -> None:
        """An input was read to its end, ``position``, as asked after all before was handled."""
        self.next[side] = max(self.next[side], position)  # offsets may have gaps
        self.clock.ended(side, now)

    def not_ended(self, side: int) -> None:
        """There is more to read of an input, or nobody can say whether there is."""
        self.clock.not_ended(side)

    def quiet(self, now: int) -> None:
        """The ends of both inputs were asked for at the wall time ``now``."""
        if not self._still_replaying():
            self.clock.quiet(now)

    def advance(self) -> None:
        """Close slates that the watermark has passed, and judge the feedback that waited."""
        if self._still_replaying():
            return
        watermark = self.clock.advance()
        before = watermark - self._lateness
        while self._closing and self._closing[0][0] < before - self._window:
            _, offset, request_id = heapq.heappop(self._closing)
            slate = self.open.get(request_id)
            if slate is not None and slate.offset == offset:
                del self.open[request_id]
                self.closed.append(slate)
                self._remember(request_id, slate.time)
        while self._expiring and self._expiring[0][0] < before:
            _, offset, request_id = heapq.heappop(self._expiring)
            act = self.waiting.remove(request_id, offset)
            if act is not None:
                self._give_up(act)

    # -- commits

    @property
    def has_news(self) -> bool:
        """Whether a commit would say more than the last one did."""
        if self._still_replaying():
            return False
        return bool(self.closed or self.dead) or self._positions() != self._last_positions

    @property
    def letters(self) -> list[DeadLetter]:
        """The dead letters of a commit made now; those met while replaying wait for its end."""
        return [] if self._replaying else self.dead

    def fields(self, wall: int) -> LaneFields:
        """What a commit at ``wall`` says of the lane; while replaying, what the last one said."""
        commits = 1 if self.committed is None else self.committed.commits + 1
        if self._still_replaying():
            assert self.committed is not None
            return self.committed._replace(commits=commits)
        return LaneFields(commits, *self._positions(), self.watermark, wall)

    def commit_done(self, fields: LaneFields) -> None:
        """The closed slates are in the table and the dead letters are sent."""
        self.committed = fields
        if self._replaying:
            return
        self._last_positions = fields[1:5]
        self.bytes -= sum(_bytes(slate) for slate in self.closed)
        self.closed.clear()
        self.dead.clear()

    def _positions(self) -> tuple[int, int, int, int]:
        """Of exposures and feedback the oldest offset still needed, and the next to handle."""
        first = next(iter(self.open.values()), None)
        offsets = [act.offset for act in self.waiting]
        # A slate takes acts in the order of their offsets.
        offsets += [slate.acts[0].offset for slate in self.open.values() if slate.acts]
        return (
            self.next[EXPOSURE] if first is None else first.offset,
            min(offsets, default=self.next[FEEDBACK]),
            self.next[EXPOSURE],
            self.next[FEEDBACK],
        )

    def refuse_closed(self, slate: OpenSlate, detail: str) -> None:
        """A closed slate cannot be written: it and its feedback become dead letters."""
        self.closed.remove(slate)
        self.bytes -= _bytes(slate)
        self._bury("feature_value", detail, EXPOSURE, slate)
        for act in slate.acts:
            self._bury("no_exposure", f"its exposure was refused: {detail}", FEEDBACK, act)

    # -- inside

    def _expose(self, record: Record, exposure: Exposure, new: bool) -> None:
        request_id, time = exposure.request_id, exposure.time
        if time + self._window + self._lateness < self.watermark:
            if new:  # else it was written, or refused for this
                late = self.watermark - time - self._window
                self._bury("late_exposure", f"{late} ms past its window", EXPOSURE, record)
            return
        assert record.value is not None
        other = self.open.get(request_id)
        if other is not None:
            if not new:
                return
            if record.value == other.value or exposure_equal(record.value, other.value):
                self.counts["duplicates"] += 1
            else:
                detail = f"the list at offset {other.offset} counts"
                self._bury("conflicting_exposure", detail, EXPOSURE, record)
            return
        if new and request_id in self._remembered:
            self._bury("conflicting_exposure", "its slate has closed", EXPOSURE, record)
            return
        slate = OpenSlate(record.offset, record.key, record.value, exposure)
        self.open[request_id] = slate
        self.bytes += slate.bytes
        heapq.heappush(self._closing, (time, record.offset, request_id))
        for act in self.waiting.of(request_id):
            if self._match(slate, act):
                self.waiting.remove(request_id, act.offset)

    def _match(self, slate: OpenSlate, act: Act) -> bool:
        """Whether an open slate decides on an act; if not, the act has to wait (it is late)."""
        event = act.event
        if event.time > slate.time + self._window:
            return False
        # Below ``read`` of both topics the two had met before, and what came of it is counted.
        new = act.offset >= self._read[FEEDBACK] or slate.offset >= self._read[EXPOSURE]
        if event.time < slate.time - self._lateness:
            if new:
                early = f"{slate.time - event.time} ms before its exposure"
                self._bury("early_feedback", early, FEEDBACK, act)
        elif event.item not in slate.items:
            if new:
                self._bury("item_not_shown", f"item {event.item[:64]!r}", FEEDBACK, act)
        elif slate.take(act):
            self.bytes += act.bytes
        elif new:
            self.counts["duplicates"] += 1
        return True

    def _wait(self, act: Act) -> None:
        event = act.event
        if event.time + self._lateness < self.watermark and not self._replaying:
            self._give_up(act)
            return
        self.waiting.add(act)
        heapq.heappush(self._expiring, (event.time, act.offset, event.request_id))

    def _give_up(self, act: Act) -> None:
        shown = self._remembered.get(act.event.request_id)
        if shown is None:
            detail = f"no exposure of request {act.event.request_id[:64]!r}"
            self._bury("no_exposure", detail, FEEDBACK, act)
        else:
            self._bury("late_feedback", f"{act.event.time - shown} ms after it", FEEDBACK, act)

    def _still_replaying(self) -> bool:
        if self._replaying and all(a >= b for a, b in zip(self.next, self._read)):
            self._replaying = False
            # What had been dealt with does not wait; see the module's docstring.
            for act in list(self.waiting):
                time = act.event.time + self._lateness
                if act.offset < self._read[FEEDBACK] and time < self.watermark:
                    self.waiting.remove(act.event.request_id, act.offset)
        return self._replaying

    def _tell_clock(self, side: int, greatest: int, replayed: int, now: int) -> None:
        if replayed >= 0:
            self.clock.replayed(side, replayed)
        if greatest >= 0:
            self.clock.seen(side, greatest, now)

    def _remember(self, request_id: str, time: int) -> None:
        self._remembered[request_id] = time
        if len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)

    def _bury(self, reason: Reason, detail: str, side: int, one: Record | OpenSlate | Act) -> None:
        self.counts[f"dead/{reason}"] += 1
        self.dead.append(DeadLetter(reason, detail, side, one.offset, one.key, one.value))


def exposure_equal(one: bytes, other: bytes) -> bool:
    """Whether two messages say the same, in whatever order or spacing."""
    return decode_exposure(one) == decode_exposure(other)


def _bytes(slate: OpenSlate) -> int:
    return slate.bytes + sum(act.bytes for act in slate.acts)
