"""Which inputs are read: memory is bounded, and neither input of a lane runs far ahead.

Reading on is what moves the watermark, and the watermark is what frees memory. So the input that
holds the watermark back is read as long as there is room at all; the one ahead waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from streaming.consumer.lane import Lane
from streaming.consumer.watermark import EXPOSURE, FEEDBACK

#: From this share of the memory on the input that is ahead waits for the other.
SOFT = 0.5


class Pauses(NamedTuple):
    """Inputs (partition, side) not to read now, and why.

    Attributes:
        waiting: lanes whose one input waits for the other.
        stuck: lanes that are full although nothing more may be read: the open window is larger
            than the memory.
    """

    inputs: frozenset[tuple[int, int]]
    waiting: frozenset[int]
    stuck: frozenset[int]


def pauses(lanes: Mapping[int, Lane], memory_bytes: int, ahead_ms: int) -> Pauses:
    """What to pause; each lane has an equal share of the memory."""
    share = memory_bytes / max(1, len(lanes))
    inputs: set[tuple[int, int]] = set()
    waiting, stuck = set(), set()
    for partition, lane in lanes.items():
        held = lane.held_bytes
        if held >= share:
            inputs |= {(partition, EXPOSURE), (partition, FEEDBACK)}
            if not lane.closed:  # what is closed goes with the next commit
                stuck.add(partition)
            continue
        first, second = lane.clock.reached
        lead = abs(first - second)
        if lead > (ahead_ms if held < SOFT * share else 0):
            inputs.add((partition, EXPOSURE if first > second else FEEDBACK))
            waiting.add(partition)
    return Pauses(frozenset(inputs), frozenset(waiting), frozenset(stuck))


def urgent(lanes: Mapping[int, Lane], memory_bytes: int, rows: int, letters: int) -> bool:
    """Whether not to wait with a commit: much is closed or refused, or a lane is full."""
    share = memory_bytes / max(1, len(lanes))
    if any(lane.closed and lane.held_bytes >= share for lane in lanes.values()):
        return True
    closed = sum(len(lane.closed) for lane in lanes.values())
    return closed >= rows or sum(len(lane.dead) for lane in lanes.values()) >= letters


def put_down(consumer: Any) -> None:
    """Let a consumer take back what it has fetched of inputs that were paused and are read again.

    kafka-python 3.0 puts that aside, and takes it back only while it has no partition in hand; one
    that it has read to the end counts as in hand until the next fetch brings something. On quiet
    traffic that is never, so what is used up is put down here, before each poll.
    """
    fetcher = getattr(consumer, "_fetcher", None)
    in_hand = getattr(fetcher, "_next_partition_records", None)
    if in_hand is not None and not in_hand:
        fetcher._next_partition_records = None  # type: ignore[union-attr]
