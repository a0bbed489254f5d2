"""Consumer members as real processes, started as a person would start them."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from deploy.child_process import free_port, start_child
from deploy.triton_process import LOCALHOST, log_tail
from tests.serving.processes import ROOT, wait_until

#: Long enough for any machine; a rebalance alone takes seconds.
READY_S, STOP_S = 90.0, 60.0


class TakeOver(NamedTuple):
    """A lane and where its new owner began: offsets, and up to where all had been handled."""

    lane: int
    exposures_position: int
    exposures_read: int
    feedback_position: int
    feedback_read: int

    @property
    def read_again(self) -> int:
        return (
            self.exposures_read
            - self.exposures_position
            + self.feedback_read
            - self.feedback_position
        )


class Member:
    """One ``python streaming/consume.py``; its output is in ``log``. It ends with the test."""

    def __init__(self, name: str, arguments: Sequence[object], folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self.port = free_port()
        command = [sys.executable, str(ROOT / "streaming" / "consume.py"), *map(str, arguments)]
        command += ["--metrics-port", str(self.port)]
        self.process: subprocess.Popen[bytes] = start_child(
            command, self.log, {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
        )

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def wait_ready(self) -> None:
        """Wait until its probe says that it works; fails with its output where it ends instead."""

        def ready() -> bool:
            assert self.is_alive, f"{self.name} ended with {self.process.returncode}:\n{self.tail}"
            try:
                return self.get("readyz") == "ok"
            except OSError:  # not listening yet, or 503: not ready
                return False

        wait_until(ready, f"{self.name} is ready", READY_S)

    def get(self, path: str) -> str:
        """What its port answers; raises OSError where it does not, or with an error."""
        url = f"http://{LOCALHOST}:{self.port}/{path}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            text: str = answer.read().decode()
            return text

    def metrics(self) -> dict[str, float]:
        """Its metrics, by name and labels as they stand in the text."""
        lines = (line.rpartition(" ") for line in self.get("metrics").splitlines())
        return {name: float(value) for name, _, value in lines if not name.startswith("#")}

    def take_overs(self) -> list[TakeOver]:
        """Where it began to read its lanes, each time that it got some."""
        found = re.findall(
            r"lane (\d+): exposures from (\d+), handled to (\d+); "
            r"feedback from (\d+), handled to (\d+)",
            self.log.read_text(errors="replace"),
        )
        return [TakeOver(*map(int, numbers)) for numbers in found]

    def kill(self) -> None:
        """SIGKILL: no flush, no commit, no leave."""
        self.process.kill()
        self.process.wait()

    def terminate(self) -> None:
        self.process.terminate()

    def wait_stopped(self) -> None:
        """Wait for the end of a member that was told to stop; it must have ended well."""
        try:
            code = self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} does not stop:\n{self.tail}") from None
        assert code == 0, f"{self.name} ended with {code}:\n{self.tail}"

    @property
    def tail(self) -> str:
        return log_tail(self.log, 40)
