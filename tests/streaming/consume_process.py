"""A consumer as a process, and what it has written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deltalake import DeltaTable
from kafka import KafkaConsumer, KafkaProducer

from contracts.events import DEAD_LETTERS, EXPOSURES, FEEDBACK, Event, Exposure, encode_event
from contracts.reading import write_yaml
from tests.contracts.examples import spec

ROOT = Path(__file__).resolve().parent.parent.parent
WAIT_S = 90.0


def wait_for(answer: Callable[[], Any], what: str, wait_s: float = WAIT_S) -> Any:
    """The first true answer; fails when none comes."""
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        if found := answer():
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited {wait_s:.0f} s in vain: {what}")


class Consumer:
    """``python streaming/consume.py`` with short windows; ends with the test."""

    def __init__(
        self,
        folder: Path,
        brokers: str,
        table: str,
        *options: object,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        features = folder / "features.yaml"
        if not features.exists():
            write_yaml(features, spec())
        self._errors = (folder / f"consumer-{time.monotonic_ns()}.log").open("wb")
        command = [sys.executable, str(ROOT / "streaming" / "consume.py")]
        command += ["--brokers", brokers, "--table", table, "--features", str(features)]
        command += ["--join-window", "2s", "--lateness", "500ms", "--commit-interval", "500ms"]
        command += ["--idle-after", "500ms", "--metrics-port", "0", "--session-timeout", "6s"]
        command += map(str, options)
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        )
        self.ready: dict[str, Any] = {}

    def wait_ready(self) -> Consumer:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it ended with {self.process.wait()}: {self.log}"
        self.ready = json.loads(line)
        return self

    def get(self, path: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.ready['metrics_port']}{path}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over its series that have the labels."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(
            float(line.rpartition(" ")[2])
            for line in self.get("/metrics")[1].splitlines()
            if line.startswith((name + "{", name + " ")) and all(one in line for one in wanted)
        )

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._errors.close()

    @property
    def log(self) -> str:
        return Path(self._errors.name).read_text(errors="replace")


def rows(table: str, options: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    opened = DeltaTable(table, storage_options=dict(options or {}))
    found: list[dict[str, Any]] = opened.to_pyarrow_table().to_pylist()
    return found


def send(brokers: str, *events: Event | tuple[str, bytes | None, bytes]) -> None:
    """Send events under their own keys, and (topic, key, value) as they are; wait for the acks."""
    producer = KafkaProducer(bootstrap_servers=brokers, max_request_size=8 << 20)
    sent = []
    for event in events:
        if isinstance(event, tuple):
            topic, key, value = event
        else:
            topic = EXPOSURES if isinstance(event, Exposure) else FEEDBACK
            key, value = event.request_id.encode(), encode_event(event)
        sent.append(producer.send(topic, key=key, value=value))
    for future in sent:
        future.get(timeout=30)
    producer.close()


def dead_letters(brokers: str, wanted: int) -> list[Any]:
    """All dead letters; waits until there are ``wanted``."""
    found: list[Any] = []
    consumer = KafkaConsumer(
        DEAD_LETTERS, bootstrap_servers=brokers, auto_offset_reset="earliest", group_id=None
    )
    try:
        deadline = time.monotonic() + WAIT_S
        while len(found) < wanted and time.monotonic() < deadline:
            for batch in consumer.poll(timeout_ms=500).values():
                found += batch
        for batch in consumer.poll(timeout_ms=1000).values():
            found += batch
    finally:
        consumer.close()
    return found
