"""Recovery re-reads no more than the open window: the positions of every commit, checked.

A new owner of a lane starts at the positions of the lane's last commit. For each commit the oldest
message that an open slate still needs is worked out from the topics and the commit's watermark
alone; a position before it would re-read closed slates, one after it would lose an open one.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

from tests.streaming.promise.members import TakeOver
from tests.streaming.promise.oracle import EXPOSURES, FEEDBACK, Message, Rules, Truth
from tests.streaming.promise.reading import Commit
from tests.streaming.promise.traffic import BAD, COUNTS, LATE, OPEN, ORPHAN, REPLACED, SLATE, UNFIT

#: Fates of messages that stand in a row, and of acts that are not judged at once.
_COUNT, _WAIT = (SLATE, COUNTS, REPLACED, OPEN), (LATE, ORPHAN)
_FIELDS = ("commits", "exposures_position", "feedback_position", "exposures_read", "feedback_read")


def wrong_starts(commits: list[Commit], starts: list[TakeOver]) -> list[str]:
    """Take-overs that did not begin where a commit of their lane says: together with ``breaches``,
    those that read again more than the open window."""
    return [
        f"began at {one}"
        for one in starts
        if one.read_again
        and not any(
            now["exposures_read"] == one.exposures_read
            and now["feedback_read"] == one.feedback_read
            # A lane that comes back to its owner unchanged goes on, past the position.
            and now["exposures_position"] <= one.exposures_position
            and now["feedback_position"] <= one.feedback_position
            for commit in commits
            for lane, now in commit.lanes.items()
            if lane == one.lane
        )
    ]


#: Offset, fate and event of each message of a topic's partition that is an event at all.
Events = dict[tuple[str, int], list[tuple[int, str, dict[str, Any]]]]


def breaches(
    commits: list[Commit], messages: list[Message], truth: Truth, rules: Rules
) -> list[str]:
    """What is wrong with the positions of any commit, in words."""
    events: Events = defaultdict(list)
    for message in sorted(messages, key=lambda one: one.offset):
        fate = truth.fates[message.place]
        if fate not in (BAD, UNFIT):
            event = json.loads(message.value)
            events[message.topic, message.partition].append((message.offset, fate, event))
    found: list[str] = []
    last: dict[int, dict[str, int]] = {}
    for commit in commits:
        for lane, now in commit.lanes.items():
            where = f"version {commit.version}, lane {lane}"
            before = last.get(lane, {})
            found += [
                f"{where}: {name} went back from {before[name]} to {now[name]}"
                for name in (*_FIELDS, "watermark")
                if name in before and name in now and now[name] < before[name]
            ]
            last[lane] = {**before, **now}
            found += [f"{where}: {one}" for one in _lane(lane, last[lane], events, rules)]
    return found


def _lane(lane: int, now: dict[str, int], events: Events, rules: Rules) -> list[str]:
    exposures, acts = (
        [one for one in events[topic, lane] if one[0] < now[f"{name}_read"]]
        for topic, name in ((EXPOSURES, "exposures"), (FEEDBACK, "feedback"))
    )
    times = {event["request_id"]: event["time"] for _, _, event in reversed(exposures)}
    watermark = now["watermark"]

    def is_open(event: dict[str, Any]) -> bool:
        """Whether the event's slate has come and is open."""
        time = times.get(event["request_id"], -(1 << 62))
        return time + rules.join_window + rules.lateness >= watermark

    def waits(event: dict[str, Any]) -> bool:
        """Whether an act must wait before it can be called late, or nobody's."""
        return bool(event["time"] + rules.lateness >= watermark)

    found = []
    for name, events in (("exposures", exposures), ("feedback", acts)):
        position, read = now[f"{name}_position"], now[f"{name}_read"]
        within, needed = [read], [read]
        for offset, fate, event in events:
            if is_open(event) or (name == "feedback" and waits(event)):
                within.append(offset)
                if (fate in _COUNT and is_open(event)) or (fate in _WAIT and waits(event)):
                    needed.append(offset)
        if position > min(needed):
            found.append(f"{name}_position {position} is after {min(needed)}, which is needed")
        if position < min(within):
            found.append(f"{name}_position {position} is before {min(within)}, the open window")
    return found
