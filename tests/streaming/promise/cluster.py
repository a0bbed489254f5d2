"""A broker, its consumer members, and what is done to them."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from deltalake import DeltaTable

from deploy.local_broker import LocalBroker
from tests.serving.processes import wait_until
from tests.streaming.promise.members import Member
from tests.streaming.promise.reading import Commit, newest_lanes, read_commits
from tests.streaming.promise.sending import Sender
from tests.streaming.promise.traffic import Scripted

GROUP = "promise"
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

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
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
        """One leaves for good, politely."""
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

    def row_count(self) -> int:
        return sum(commit.rows for commit in self.commits)

    def wait_read(self, ends: dict[tuple[str, int], int]) -> None:
        """Wait until everything up to the ends is read and committed."""

        def read() -> bool:
            self.check_alive()
            lanes = self.lanes
            return all(
                lanes.get(lane, {}).get(f"{topic.removeprefix('gref.')}_read", 0) >= end
                for (topic, lane), end in ends.items()
            )

        wait_until(read, f"all is read: {ends} and not {self.lanes}", PATIENCE_S)

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
                before = self.messages_read
                self._wait_progress(before)
                time.sleep(self.rng.uniform(0, 1))
                getattr(self, todo.pop(0))()
        assert not todo, f"the script is too short for {todo}"

    def _wait_progress(self, before: int) -> None:
        def moved() -> bool:
            self.check_alive()
            return self.messages_read > before

        wait_until(moved, f"the group reads on from {before}\n{self.logs}", PATIENCE_S)

    @property
    def logs(self) -> str:
        return "\n".join(f"--- {member.name}\n{member.tail}" for member in self.members)

    def version(self) -> int:
        return int(DeltaTable(str(self.table)).version())
