"""A consumer member as the benchmarks see it: its process, its metrics, and the table it writes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from contracts.events import EXPOSURES, FEEDBACK
from contracts.feedback_table import lane_app_id
from deploy.child_process import free_port, start_child
from deploy.triton_install import StackError
from deploy.triton_process import LOCALHOST, log_tail

_POLL_S = 0.05
#: Fields of a lane by topic: what had been handled at its last commit.
_READ = {EXPOSURES: "exposures_read", FEEDBACK: "feedback_read"}


class ConsumerProcess:
    """One ``python streaming/consume.py`` with further options; it ends with this process."""

    def __init__(self, log: Path, *options: object) -> None:
        self.log = log
        self.port = free_port()
        root = Path(__file__).resolve().parent.parent
        command = [sys.executable, str(root / "streaming" / "consume.py"), *map(str, options)]
        command += ["--metrics-port", str(self.port)]
        self.process: subprocess.Popen[bytes] = start_child(command, log, {"OMP_NUM_THREADS": "1"})

    @property
    def pid(self) -> int:
        return self.process.pid

    def is_ready(self) -> bool:
        """Whether it has lanes and works on them; raises StackError where it has ended."""
        if self.process.poll() is not None:
            raise StackError(
                f"the consumer ended with code {self.process.returncode}:\n{log_tail(self.log)}"
            )
        try:
            self._get("readyz")
        except OSError:
            return False
        return True

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels; 0 where the process does not answer."""
        try:
            lines = self._get("metrics").splitlines()
        except OSError:
            return 0.0
        return sum(
            float(line.rpartition(" ")[2])
            for line in lines
            if line.partition(" ")[0].partition("{")[0] == name
        )

    def stop(self, wait_s: float = 120.0) -> int:
        """SIGTERM, and its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(wait_s)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def _get(self, path: str) -> str:
        url = f"http://{LOCALHOST}:{self.port}/{path}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            text: str = answer.read().decode()
            return text


class Progress:
    """How far a group has come, as the table says."""

    def __init__(self, table: Path, group: str, partitions: int) -> None:
        self._path, self._group, self._partitions = table, group, partitions
        self._table: DeltaTable | None = None

    def read(self) -> dict[tuple[str, int], int]:
        """For each topic and partition the offset up to which all is handled and committed."""
        if self._table is None:
            try:
                self._table = DeltaTable(str(self._path), without_files=True)
            except TableNotFoundError:
                return {}
        self._table.update_incremental()
        return {
            (topic, partition): self._table.transaction_version(
                lane_app_id(self._group, partition, field)
            )
            or 0
            for topic, field in _READ.items()
            for partition in range(self._partitions)
        }

    def has_read(self, ends: Mapping[tuple[str, int], int]) -> bool:
        read = self.read()
        return all(read.get(place, 0) >= end for place, end in ends.items())

    def rows(self) -> tuple[int, int]:
        """Rows of the table, and how many request ids are in more than one."""
        ids = DeltaTable(str(self._path)).to_pyarrow_table(columns=["request_id"])["request_id"]
        return len(ids), len(ids) - len(ids.unique())


def wait_for(condition: Callable[[], bool], what: str, limit_s: float) -> None:
    """Wait for a condition; raises StackError after ``limit_s``."""
    give_up = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > give_up:
            raise StackError(f"waited {limit_s:g} s in vain: {what}")
        time.sleep(_POLL_S)
