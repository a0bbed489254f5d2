"""The join alone under random crashes: the promise of one lane, without broker or processes.

Logs that grow, read in random portions from either topic, commits and crashes at random moments
(also between the dead letters and the commit), against the same oracle as the real thing.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa
import pytest

from contracts.feedback_table import LANE_FIELDS
from streaming.consumer.committing import Committer
from streaming.consumer.dead_letters import DeadLetter as DeadLetterSent
from streaming.consumer.intake import Intake
from streaming.consumer.lane import Lane, LaneFields
from streaming.consumer.metrics import ConsumerMetrics
from tests.contracts.examples import spec
from tests.streaming.promise.comparison import DeadLetter, compare
from tests.streaming.promise.oracle import EXPOSURES, FEEDBACK, Message, Rules, judge
from tests.streaming.promise.reading import Commit
from tests.streaming.promise.test_promise import REASONS
from tests.streaming.promise.traffic import OPEN, Clock, aftermath, pushers, traffic
from tests.streaming.promise.windows import breaches

CLOCK = Clock(begin=1_700_000_000_000, join_window=60_000, lateness=60_000)
RULES = Rules(CLOCK.join_window, CLOCK.lateness, future=CLOCK.begin + 43_200_000)
TOPICS = (EXPOSURES, FEEDBACK)
SPEC = spec()
INTAKE = Intake(SPEC, max_skew=600_000)


@dataclass(frozen=True)
class Record:
    """A Kafka record, as far as the join looks at it."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int = 0
    timestamp_type: int = 0


class Died(Exception):
    """The member is gone in the midst of a commit."""


class CrashingLane:
    """One lane and its successors, and what they leave behind."""

    spec = SPEC

    def __init__(self, seed: int, messages: list[Message], arrivals: list[int]) -> None:
        self.rng = random.Random(seed)
        self.messages, self.arrivals = messages, arrivals
        self.logs: tuple[list[Record], ...] = ([], [])
        self.sent = 0
        self.now = CLOCK.begin
        self.lane = self._take_over(None)
        self.rows: list[dict[str, Any]] = []
        self.letters: list[DeadLetter] = []
        self.commits: list[Commit] = []
        self.events: Counter[str] = Counter()
        self.dies = False
        self.committer = Committer(cast(Any, self), cast(Any, self), ConsumerMetrics())

    def run_to(self, end: int, crashes: float) -> None:
        """Live until the first ``end`` messages are read and committed."""
        while self.sent < end or any(
            self.lane.next[side] < len(self.logs[side]) for side in (0, 1)
        ):
            self._grow(end)
            self._read()
            if self.rng.random() < 0.3:
                self._commit(crashes)
            if self.rng.random() < crashes:
                self.lane = self._take_over(self.lane.committed)
                self.events["crash"] += 1
        self._read()
        self._commit(0)

    def _take_over(self, committed: LaneFields | None) -> Lane:
        return Lane(0, INTAKE, CLOCK.join_window, CLOCK.lateness, committed)

    @property
    def _at_end(self) -> list[bool]:
        return [self.lane.next[side] == len(self.logs[side]) for side in (0, 1)]

    def _grow(self, end: int) -> None:
        for message in self.messages[self.sent : min(end, self.sent + self.rng.randrange(60))]:
            log = self.logs[TOPICS.index(message.topic)]
            log.append(Record(message.offset, message.key, message.value))
            self.now = max(self.now, self.arrivals[self.sent])
            self.sent += 1
        self.now += self.rng.randrange(200)

    def _read(self) -> None:
        side = self.rng.randrange(2)
        start = self.lane.next[side]
        handle = (self.lane.exposures, self.lane.feedback)[side]
        handle(self.logs[side][start : start + self.rng.randrange(80)], self.now)
        if self.rng.random() < 0.5:  # the ends are asked for
            for side in (0, 1):
                if self._at_end[side]:
                    self.lane.ended(side, len(self.logs[side]), self.now)
                else:
                    self.lane.not_ended(side)
            self.lane.quiet(self.now)
        self.lane.advance()

    def _commit(self, crashes: float) -> None:
        self.dies = self.rng.random() < crashes
        try:
            self.committer.commit({0: self.lane}, self.now, send_timeout_s=1)
        except Died:
            self.lane = self._take_over(self.lane.committed)
            self.events["crash before the commit"] += 1

    # What a commit is made of, in memory: the sender's part and the table's.

    def send(self, letters: Mapping[int, Sequence[DeadLetterSent]], timeout_s: float) -> None:
        self.letters += [
            DeadLetter((TOPICS[one.side], 0, one.offset), one.reason, one.value or b"")
            for one in letters[0]
        ]
        self.events["sent in vain"] += self.dies * len(letters[0])

    def commit(self, rows: pa.Table | None, lanes: Mapping[int, LaneFields]) -> None:
        if self.dies:  # the dead letters are sent, the commit is not made
            raise Died
        self.rows += [] if rows is None else rows.to_pylist()
        values = dict(zip(LANE_FIELDS, lanes[0]))
        self.commits.append(Commit(len(self.commits), {0: values}, rows.num_rows if rows else 0))

    def tidy(self) -> None:
        """Nothing to tidy."""


@pytest.mark.parametrize("seed", range(6))
def test_a_lane_keeps_the_promise_over_crashes(seed: int) -> None:
    sent = traffic(seed, 400, CLOCK)
    last = pushers(0, CLOCK.begin + 1_800_000, "push")
    script = [*sent, *last, *aftermath(seed, sent, 40)]
    ends: Counter[str] = Counter()
    messages, arrivals = [], []
    for one in script:
        messages.append(Message(one.topic, 0, ends[one.topic], one.key, one.value))
        arrivals.append(one.arrival)
        ends[one.topic] += 1
    before = Counter(one.topic for one in [*sent, *last])
    lane = CrashingLane(seed, messages, arrivals)
    lane.run_to(len(sent) + len(last), crashes=0.05)
    lane.run_to(len(script), crashes=0.05)

    truth = judge(messages, RULES, {(topic, 0): end for topic, end in before.items()})
    verdict = compare(truth, lane.rows, lane.letters, REASONS)
    assert not verdict.broken, verdict
    assert not breaches(lane.commits, messages, truth, RULES)
    assert lane.events["crash"] > 5
    # Only what a dying member sent may come again.
    assert verdict.repeats <= lane.events["sent in vain"]
    assert len(truth.rows) == 400
    assert len(truth.places(OPEN)) == 2
