"""The demo's consumer: the real command as a process, watched by its own metrics."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from deploy.child_process import start_child
from deploy.demonstration.commands import console, say
from deploy.triton_install import StackError
from deploy.triton_process import LOCALHOST, log_tail

READY_S, DRAIN_S, STOP_S = 90.0, 180.0, 60.0
COMMIT_S = 2.0
_POLL_S = 0.2
_READY = re.compile(r'^\{"ready": true.*\}$', re.MULTILINE)
_HANDLED = ("gref_consumer_events", "gref_consumer_duplicates", "gref_consumer_dead_letters")


class Consumer:
    """A running consumer."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, port: int) -> None:
        self._process, self._log = process, log
        self._url = f"http://{LOCALHOST}:{port}"
        self._expected = 0.0

    def handled(self) -> float:
        """Messages that were handled so far: events, duplicates and dead letters."""
        return sum(self._sum(name) for name in _HANDLED)

    def count(self, name: str) -> float:
        """A metric of the consumer, summed over its labels, e.g. ``rows``."""
        return self._sum(f"gref_consumer_{name}")

    def drain(self, sent: int) -> None:
        """Wait until ``sent`` further messages were handled, and what they closed is in the table.

        Raises:
            StackError: it ended, or did not get there in time.
        """
        self._expected += sent
        give_up, rows, since = time.monotonic() + DRAIN_S, -1.0, time.monotonic()
        while True:
            if self._process.poll() is not None or time.monotonic() > give_up:
                raise StackError(
                    f"the consumer handled {self.handled():.0f} of {self._expected:.0f} messages; "
                    f"{self._log}:\n{log_tail(self._log)}"
                )
            now = self.count("rows")
            behind = self.handled() < self._expected or self.count("lag") > 0
            if behind or now != rows:
                rows, since = now, time.monotonic()
            elif time.monotonic() - since > 2 * COMMIT_S + 1:
                return
            time.sleep(_POLL_S)

    def _sum(self, name: str) -> float:
        with urllib.request.urlopen(f"{self._url}/metrics", timeout=5) as answer:  # noqa: S310
            text = answer.read().decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            if family.name == name
            for sample in family.samples
            if sample.name in (name, f"{name}_total")
        )


@contextmanager
def consumer(
    brokers: str, table: Path, features: Path, log: Path, *options: object
) -> Iterator[Consumer]:
    """The consumer command, started, ready, and stopped politely (SIGTERM) in the end.

    Args:
        options: further ones of the command.

    Raises:
        StackError: it did not become ready, or ended with an error.
    """
    command = say(
        "streaming/consume.py",
        *("--brokers", brokers, "--table", table, "--features", features),
        *("--commit-interval", f"{COMMIT_S:g}s", "--idle-after", "1s", "--metrics-port", 0),
        *options,
    )
    log.unlink(missing_ok=True)
    process = start_child(command, log, {})
    try:
        with console.status("starting the consumer"):
            port = _wait_ready(process, log)
        yield Consumer(process, log, port)
        process.terminate()
        code = process.wait(STOP_S)
        if code != 0:
            raise StackError(f"the consumer ended with code {code}; {log}:\n{log_tail(log)}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _wait_ready(process: subprocess.Popen[bytes], log: Path) -> int:
    """The port of its metrics, once it says that it is ready."""
    give_up = time.monotonic() + READY_S
    while True:
        if found := _READY.search(log.read_text(errors="replace")):
            port: int = json.loads(found[0])["metrics_port"]
            return port
        if process.poll() is not None or time.monotonic() > give_up:
            raise StackError(f"the consumer is not ready; {log}:\n{log_tail(log)}")
        time.sleep(_POLL_S)
