"""What goes wrong between a ranking server and its table: late, twice, out of order, malformed.

Every fault has a known fate, so that what a consumer did can be checked against what was sent:

* late feedback arrives when its slate has long closed: a dead letter;
* a duplicate has the event_id of its original: it counts once;
* an event out of order comes later than others of its time, but in time: nothing is lost;
* a malformed message comes beside the event that it was made from: a dead letter, and no loss;
* a lost exposure is not sent: what its user does is feedback on no known exposure, dead letters.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from contracts.assignment import BUCKETS, arms_of, bucket
from contracts.events import EXPOSURES, FEEDBACK, Event, Exposure, encode_event
from contracts.reading import Strict


class FaultSettings(Strict, kw_only=True, frozen=True):
    """Which share of events suffers what.

    Attributes:
        late: of feedback, held back for ``late_by_ms`` of event time after the exposure.
        duplicate, malformed, out_of_order: of all events.
        lost: of the users of the arm ``lost_arm`` ("experiment/arm"), whose exposures are not sent,
            as by an app whose version forgets to: what a check of sample ratios must find.
        late_by_ms: longer than the consumer's join window and lateness together.
        disorder_ms: the longest delay of an event out of order, or of a duplicate; shorter than
            the consumer's lateness.
    """

    late: float = 0.0
    duplicate: float = 0.0
    malformed: float = 0.0
    out_of_order: float = 0.0
    lost: float = 0.0
    lost_arm: str = ""
    late_by_ms: int = 20 * 60_000
    disorder_ms: int = 30_000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("late", "duplicate", "malformed", "out_of_order", "lost"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: a share, 0 to 1")
        if self.lost and not arms_of(self.lost_arm):
            raise ValueError(f"lost_arm is {self.lost_arm!r}; allowed: EXPERIMENT/ARM")
        if not 0 <= self.disorder_ms <= self.late_by_ms:
            raise ValueError(
                f"disorder_ms is {self.disorder_ms}; allowed: 0 to late_by_ms, {self.late_by_ms}"
            )


@dataclass(frozen=True)
class Message:
    """What is sent: an event, or bytes that are none.

    Attributes:
        due: event time in ms at which it is sent.
        event: None where it is malformed; then ``topic``, ``key`` and ``raw`` say what to send.
        fate: "kept", "late", "duplicate" or "malformed".
    """

    due: int
    topic: str
    key: str
    event: Event | None
    raw: bytes
    fate: str


class Outbox:
    """Holds events until they are due, in the order of event time, and adds the faults.

    Attributes:
        sent: how many messages were handed out, by fate; ``out_of_order`` counts those among them
            that were delayed, ``early`` late ones that were due after the end of the traffic and
            so were sent before they were late.
        lost: exposures that were not sent.
    """

    def __init__(self, faults: FaultSettings, until_ms: int | None = None) -> None:
        """Make it empty.

        Args:
            until_ms: event time at which the traffic ends, where that is known: feedback that
                could not be late by then is not chosen to be.
        """
        self.sent: Counter[str] = Counter()
        self.lost = 0
        self._faults = faults
        self._until = until_ms
        self._random = random.Random(faults.seed)
        self._heap: list[tuple[int, int, Message]] = []
        self._number = itertools.count()

    def put(self, event: Event, exposed_at: int) -> None:
        """Take an event of a list that was shown at ``exposed_at`` (ms)."""
        faults, due = self._faults, event.time
        if isinstance(event, Exposure) and self._loses(event):
            self.lost += 1
            return
        if self._hits(faults.malformed):
            raw = self._random.choice(BREAKERS)(event)
            self._hold(Message(due, topic_of(event), event.request_id, None, raw, "malformed"))
        fate, late_at = "kept", exposed_at + faults.late_by_ms
        may_be_late = self._until is None or late_at < self._until
        if not isinstance(event, Exposure) and may_be_late and self._hits(faults.late):
            fate, due = "late", late_at
        elif self._hits(faults.out_of_order):
            due += self._random.randint(0, faults.disorder_ms)
            self.sent["out_of_order"] += 1
        self._hold(Message(due, topic_of(event), event.request_id, event, b"", fate))
        if fate == "kept" and self._hits(faults.duplicate):
            again = due + self._random.randint(0, faults.disorder_ms)
            again = min(again, event.time + faults.disorder_ms)
            self._hold(Message(again, topic_of(event), event.request_id, event, b"", "duplicate"))

    def ready(self, now: int) -> Iterator[Message]:
        """What is due at event time ``now``, the earliest first."""
        while self._heap and self._heap[0][0] <= now:
            message = heapq.heappop(self._heap)[2]
            self.sent[message.fate] += 1
            yield message

    def rest(self) -> Iterator[Message]:
        """Everything that is still held, at the end of the traffic."""
        for _, _, message in sorted(self._heap):
            self.sent["early" if message.fate == "late" else message.fate] += 1
            yield message
        self._heap.clear()

    def __len__(self) -> int:
        return len(self._heap)

    def _hits(self, share: float) -> bool:
        return share > 0 and self._random.random() < share

    def _loses(self, exposure: Exposure) -> bool:
        wanted = arms_of(self._faults.lost_arm).items()
        if not self._faults.lost or not wanted <= arms_of(exposure.arm).items():
            return False
        return bucket(":lost", exposure.user) < self._faults.lost * BUCKETS

    def _hold(self, message: Message) -> None:
        heapq.heappush(self._heap, (message.due, next(self._number), message))


def topic_of(event: Event) -> str:
    """The topic that an event belongs to."""
    return EXPOSURES if isinstance(event, Exposure) else FEEDBACK


def _with(event: Event, **changes: object) -> bytes:
    return msgspec.json.encode({**msgspec.to_builtins(event), **changes})


#: Ways to break an event; no decoder that keeps the contract takes what comes out.
BREAKERS: tuple[Callable[[Event], bytes], ...] = (
    lambda event: encode_event(event)[:-2],  # cut short
    lambda event: b"\xff\xfe" + encode_event(event),  # not UTF-8
    lambda event: _with(event, version=99),
    lambda event: _with(event, time="yesterday"),
    lambda event: _with(event, request_id=""),
    lambda event: _with(event, colour="green"),  # a field that is not in the schema
    lambda event: b"",
    lambda event: b"[]",
)
