"""How the last refresh went, for Prometheus: a textfile, for a batch job ends before it is asked.

``--metrics-file DIR/refresh.prom`` is written in one rename when the run ends, however it ends;
node_exporter's textfile collector serves it (docs/monitoring.md). A run that is killed writes
nothing: the age of the file is what tells.
"""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from contracts.reading import ContractError
from training.command import errors
from training.refreshing.findings import Summary
from training.release.store import ReleaseStore

#: ``failed``: it ended with exit code 2, or with an exception.
OUTCOMES = ("published", "unchanged", "refused", "failed")


class RunMetrics:
    """Notes the time of a run and, at its end, writes ``gref_refresh_*``.

    Attributes:
        summary: what the run came to; None where it failed.
    """

    def __init__(self, path: Path | None, releases: Path) -> None:
        """Note the start; ``path`` None writes nothing.

        Raises:
            ContractError: the path is not one that the collector would read.
        """
        if path is not None and path.suffix != ".prom":
            raise ContractError(f"--metrics-file {path}: the collector reads *.prom alone")
        if path is not None and not path.parent.is_dir():
            raise ContractError(f"--metrics-file {path}: no such folder as {path.parent}")
        self.summary: Summary | None = None
        self._path, self._releases = path, releases
        self._began = time.monotonic()

    def __enter__(self) -> RunMetrics:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._path is None or (self.summary and self.summary.outcome == "dry-run"):
            return
        try:
            write_to_textfile(str(self._path), self._registry())
        except OSError as trouble:  # what was published is published all the same
            errors.print(f"warning: {self._path} was not written: {trouble}", style="yellow")

    def _registry(self) -> CollectorRegistry:
        registry = CollectorRegistry()

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"gref_refresh_{name}", text, labels, registry=registry)

        gauge("finished_timestamp_seconds", "When the last refresh ended.").set(time.time())
        gauge("duration_seconds", "Wall time of the last refresh.").set(
            time.monotonic() - self._began
        )
        ended = self.summary.outcome if self.summary else "failed"
        outcome = gauge("outcome", "1 for what the last refresh came to.", "outcome")
        for name in OUTCOMES:
            outcome.labels(name).set(name == ended)
        if champion := self._champion():
            info = gauge(
                "champion_info", "1 for the champion when the last refresh ended.", "release"
            )
            info.labels(champion).set(1)
        if self.summary is None:
            return registry
        gauge("slates", "Slates that the last refresh read.").set(self.summary.slates)
        passed = gauge("gate_passed", "1 where the gate passed.", "gate")
        value = gauge("gate_value", "What the gate measured.", "gate")
        limit = gauge("gate_limit", "What the gate allows.", "gate")
        for gate in self.summary.gates:
            passed.labels(gate.name).set(gate.passed)
            value.labels(gate.name).set(gate.value)
            limit.labels(gate.name).set(gate.limit)
        return registry

    def _champion(self) -> str | None:
        try:
            return ReleaseStore(self._releases).record().release
        except (ContractError, OSError):  # that there is none is said by the refresh itself
            return None
