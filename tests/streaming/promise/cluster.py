"""A broker, its consumer members, and what is done to them."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from deploy.local_broker import LocalBroker
from tests.serving.processes import wait_until
from tests.streaming.promise.members import Member, TakeOver
from tests.streaming.promise.reading import Commit, newest_lanes, read_commits
from tests.streaming.promise.sending import Sender
from tests.streaming.promise.traffic import Scripted

GROUP, PARTITIONS = "promise", 4
#: For whatever must happen in the end, with members dying and a group that rebalances.
PATIENCE_S = 120.0
#: How much event time may be on its way at once: with what ``Clock.reach`` takes it must stay
#: below the lateness, for a broker that dies may keep one topic's part and not the other's.
SLICE_MS = 20_000


class Cluster:
    """Members of one group on one broker; every random choice comes from ``rng``."""

    def __init__(
        self,
        broker: LocalBroker,
        folder: Path,
        arguments: Sequence[object],
        rng: random.Random,
    ) -> None:
        self.broker = broker
        self.folder = folder
        self.table = folder / "table"
        self.rng = rng
        self.arguments = ["--brokers", broker.address, "--table", self.table]
        self.arguments += ["--group", GROUP, *arguments]
        self.members: list[Member] = []
        self.ended: list[Member] = []
        self.sender = Sender(broker.address)
        self._diary: list[str] = []
        self._begun = time.monotonic()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.note("the end")
        (self.folder / "diary.txt").write_text(self.diary)
        for member in self.members:
            member.kill()
        self.sender.close()

    # What is done to it.

    def add_member(self, wait: bool = False) -> Member:
        number = len(self.members) + len(self.ended)
        member = Member(f"member-{number}", self.arguments, self.folder)
        self.members.append(member)
        if wait:
            member.wait_ready()
        return member

    def kill_member(self) -> None:
        """One dies and another takes its place: the group must notice, and rebuild its lanes."""
        self._remove(self.rng.choice(self.members)).kill()
        self.add_member()

    def stop_member(self) -> None:
        """One leaves for good, politely, when the group is settled.

        In the midst of a rebalance Tansu 0.6.0 keeps a leader that leaves as its leader for ever,
        and the others wait for it; kills, at whatever moment, it survives.
        """
        self.wait_settled()
        member = self._remove(self.rng.choice(self.members))
        member.terminate()
        member.wait_stopped()

    def kill_broker(self) -> None:
        self.broker.kill()
        time.sleep(self.rng.uniform(0, 1))  # down for a while, at the seed's choice
        self.broker.start()

    def kill_everything(self) -> None:
        count = len(self.members)
        self.broker.kill()
        for member in list(self.members):
            self._remove(member).kill()
        self.broker.start()
        for _ in range(count):
            self.add_member()

    def stop_all(self) -> None:
        """SIGTERM to all at once; each must end well."""
        for member in self.members:
            member.terminate()
        for member in self.members:
            member.wait_stopped()
        self.note("all have stopped")
        self.ended += self.members
        self.members = []

    def _remove(self, member: Member) -> Member:
        self.members.remove(member)
        self.ended.append(member)
        return member

    # What is seen of it: the table alone.

    @property
    def lanes(self) -> dict[int, dict[str, int]]:
        return newest_lanes(self.table, GROUP)

    @property
    def commits(self) -> list[Commit]:
        return read_commits(self.table, GROUP)

    @property
    def messages_read(self) -> int:
        return sum(lane["exposures_read"] + lane["feedback_read"] for lane in self.lanes.values())

    def wait_settled(self) -> None:
        """Wait until each lane has its owner, and each member a lane."""

        def settled() -> bool:
            self.check_alive()
            try:
                lanes = [one.metrics()["gref_consumer_lanes"] for one in self.members]
            except OSError:  # one is still starting
                return False
            return sum(lanes) == PARTITIONS and min(lanes) > 0

        wait_until(settled, f"all lanes have their owners; see {self.folder}", PATIENCE_S)

    def wait_rows(self, count: int) -> None:
        """Wait until the table has so many rows."""

        def written() -> bool:
            self.check_alive()
            return sum(commit.rows for commit in self.commits) >= count

        wait_until(written, f"{count} rows; see {self.folder}", PATIENCE_S)
        self.note(f"{count} rows")

    @property
    def take_overs(self) -> list[TakeOver]:
        """Of all members that ever were."""
        return [one for member in self.members + self.ended for one in member.take_overs()]

    @property
    def diary(self) -> str:
        """What was done when, for whoever has to understand a failure."""
        return "\n".join(self._diary)

    def note(self, what: str) -> None:
        self._diary.append(f"{time.monotonic() - self._begun:6.1f} s  {what}")

    def wait_read(self, ends: dict[tuple[str, int], int]) -> None:
        """Wait until everything up to the ends is read and committed."""

        def read() -> bool:
            self.check_alive()
            lanes = self.lanes
            return all(
                lanes.get(lane, {}).get(f"{topic.removeprefix('gref.')}_read", 0) >= end
                for (topic, lane), end in ends.items()
            )

        wait_until(read, f"all is read to {ends}; see {self.folder}", PATIENCE_S)
        self.note("all is read")

    def check_alive(self) -> None:
        """A member that ends by itself is a failure, whatever else comes of it."""
        for member in self.members:
            assert member.is_alive, f"{member.name} ended by itself:\n{member.tail}"

    def torment(self, script: list[Scripted], actions: list[str]) -> None:
        """Send a script, each action in the midst of a part of it.

        Between two actions the group must have read on, so that each hits one that works; the
        moment itself is the seed's.
        """
        slices = [list(group) for _, group in groupby(script, lambda one: one.arrival // SLICE_MS)]
        per_action = len(slices) // (len(actions) + 1)
        todo = list(actions)
        for number, part in enumerate(slices, 1):
            self.sender.ends()
            self.sender.send(part)
            if todo and number % per_action == 0:
                self._wait_progress(self.messages_read)
                time.sleep(self.rng.uniform(0, 1))
                self.note(todo[0])
                getattr(self, todo.pop(0))()
        assert not todo, f"the script is too short for {todo}"

    def _wait_progress(self, before: int) -> None:
        def moved() -> bool:
            self.check_alive()
            return self.messages_read > before

        wait_until(moved, f"the group reads on from {before}; see {self.folder}", PATIENCE_S)
