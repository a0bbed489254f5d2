"""Events of a usual size for the streaming benchmarks, made faster than they can be sent.

Encoding a million exposures would take longer than consuming them: a few hundred are encoded and
the request id and the times are put into copies of their bytes.
"""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

from contracts.events import EXPOSURES, FEEDBACK, Exposure, FeedbackEvent, encode_event
from contracts.features import Categorical, Dense, FeatureGroup, FeatureSpec, FeedbackKind
from contracts.slates import Candidate

_REQUEST, _TIME = "r-placeholder", 1_111_111_111_111
_TEMPLATES = 256

#: topic, key, value.
Record = tuple[str, bytes, bytes]


def streaming_spec(list_size: int) -> FeatureSpec:
    """Three features a candidate and its score, two a user, two kinds of feedback."""
    return FeatureSpec(
        user=FeatureGroup(
            categorical=(Categorical(name="segment", buckets=100, width=8),),
            dense=(Dense(name="activity"),),
        ),
        item=FeatureGroup(
            categorical=(
                Categorical(name="author", buckets=10_000, width=16),
                Categorical(name="category", buckets=100, width=8),
            ),
            dense=(Dense(name="duration", transform="log1p"), Dense(name="score")),
        ),
        list_size=list_size,
        feedback=(
            FeedbackKind(kind="click", type="binary"),
            FeedbackKind(kind="watch", type="continuous"),
        ),
        utility="click",
    )


@dataclass(frozen=True)
class Load:
    """What traffic looks like.

    Attributes:
        candidates, list_size: of each slate.
        acts: mean number of feedback events of a slate.
        open_slates: slates that are open at any time.
        join_window_ms, lateness_ms: the consumer's, in event time. Event time runs much faster
            here than the wall, so that the lateness must be long to be seconds.
        late: share of slates with one act beyond the window.
    """

    candidates: int = 30
    list_size: int = 10
    acts: float = 3.0
    open_slates: int = 5_000
    join_window_ms: int = 600_000
    lateness_ms: int = 600_000
    late: float = 0.0

    @property
    def step_ms(self) -> float:
        """Event time between two exposures: a slate closes a window and two latenesses after."""
        return (self.join_window_ms + 2 * self.lateness_ms) / self.open_slates


def begin_of(load: Load, events: int) -> int:
    """When traffic of so many messages must begin for none of it to lie in the future; ms."""
    span = events / (1 + load.acts) * load.step_ms * 1.2
    return int(time.time() * 1000 - span) - 15 * (load.join_window_ms + load.lateness_ms)


class FeedbackTraffic:
    """An endless stream of records in arrival order, from a seed.

    Attributes:
        slates, late: what has been made so far.
    """

    def __init__(self, load: Load, begin_ms: int, seed: int = 0) -> None:
        self.load = load
        self.slates = 0
        self.late = 0
        self._begin_ms = begin_ms
        self._random = random.Random(seed)
        self._exposures = [self._exposure_template() for _ in range(_TEMPLATES)]
        self._acts = [self._act_template(item) for item in range(load.list_size)]
        self._due: list[tuple[int, int, bytes, bytes]] = []

    def records(self, count: int) -> Iterator[Record]:
        """About ``count`` records more: whole slates, and the acts whose time has come."""
        made = 0
        while made < count:
            now = self._time()
            while self._due and self._due[0][0] <= now:
                _, _, key, value = heapq.heappop(self._due)
                made += 1
                yield FEEDBACK, key, value
            made += 1
            yield self._slate(now)

    def rest(self, partitions: int) -> Iterator[tuple[int, Record]]:
        """The acts that are still due, and for each partition an exposure and an act so late that
        every slate but this closes; the partition is -1 where the key chooses it."""
        while self._due:
            _, _, key, value = heapq.heappop(self._due)
            yield -1, (FEEDBACK, key, value)
        end = self._time() + 10 * (self.load.join_window_ms + self.load.lateness_ms)
        for partition in range(partitions):
            request = f"end-{partition}".encode()
            stamp = str(end).encode()
            yield partition, (EXPOSURES, request, _fill(self._exposures[0], request, stamp))
            yield partition, (FEEDBACK, request, _fill(self._acts[0], request, stamp))

    def _time(self) -> int:
        return self._begin_ms + int(self.slates * self.load.step_ms)

    def _slate(self, time: int) -> Record:
        rng, window = self._random, self.load.join_window_ms
        key = b"r-%09d" % self.slates
        for _ in range(int(rng.expovariate(1 / self.load.acts) + 0.5)):
            self._act(time + int(rng.random() ** 2 * window * 0.95) + 1, key)
        if rng.random() < self.load.late:
            self._act(time + int(1.5 * window), key)
            self.late += 1
        self.slates += 1
        return EXPOSURES, key, _fill(rng.choice(self._exposures), key, str(time).encode())

    def _act(self, time: int, key: bytes) -> None:
        template = self._random.choice(self._acts)
        number = self._random.getrandbits(40)
        value = _fill(template, key, str(time).encode()).replace(b"e-number", b"e-%d" % number)
        heapq.heappush(self._due, (time, number, key, value))

    def _exposure_template(self) -> list[bytes]:
        rng, load = self._random, self.load
        exposure = Exposure(
            request_id=_REQUEST,
            user=f"u{rng.randrange(1_000_000)}",
            time=_TIME,
            candidates=tuple(
                Candidate(
                    # The same ids in each, so that any act fits any slate.
                    item=f"item-{index:07d}",
                    features={
                        "author": f"a{rng.randrange(10_000)}",
                        "category": f"c{rng.randrange(100)}",
                        "duration": round(rng.uniform(1, 300), 2),
                    },
                    score=round(rng.gauss(0, 1), 5),
                )
                for index in range(load.candidates)
            ),
            exposed=tuple(rng.sample(range(load.list_size), load.list_size)),
            user_features={"segment": f"g{rng.randrange(100)}", "activity": rng.random()},
            surface="home",
            release="r0001",
            arm="treatment",
            log_prob=tuple(-rng.random() for _ in range(load.list_size)),
            temperature=0.5,
            seed=rng.getrandbits(40),
        )
        return _cut(encode_event(exposure))

    def _act_template(self, item: int) -> list[bytes]:
        kind = "watch" if item % 3 == 2 else "click"
        return _cut(
            encode_event(
                FeedbackEvent(
                    event_id="e-number",
                    request_id=_REQUEST,
                    item=f"item-{item:07d}",
                    kind=kind,
                    value=1.0 if kind == "click" else 12.5,
                    time=_TIME,
                )
            )
        )


def _cut(raw: bytes) -> list[bytes]:
    """The bytes around the request id and the time, which follows it."""
    head, _, tail = raw.partition(_REQUEST.encode())
    middle, _, tail = tail.partition(str(_TIME).encode())
    assert tail, raw
    return [head, middle, tail]


def _fill(parts: list[bytes], request: bytes, time: bytes) -> bytes:
    head, middle, tail = parts
    return b"".join((head, request, middle, time, tail))
