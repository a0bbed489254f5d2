"""The steps of a refresh that was not done before, from slates to a release or a refusal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow as pa

from contracts.datasets import read_dataset
from contracts.features import FeatureSpec
from contracts.releases import Gate, settings_of
from training.data.arrays import encode_table
from training.data.facts import DataFacts, facts_of
from training.distributed import Processes
from training.refreshing.candidate import train_candidate
from training.refreshing.data_gates import data_gates
from training.refreshing.evaluating import evaluate_candidate
from training.refreshing.findings import (
    Evaluation,
    Findings,
    Summary,
    Training,
    failed,
    versions_of,
)
from training.refreshing.gates import evaluation_gates, latency_gate, training_gates
from training.refreshing.latency import Latency
from training.refreshing.publishing import (
    export_candidate,
    measure_latency,
    publish_candidate,
    put_to_work,
)
from training.refreshing.refusals import keep_refusal, refusal_folder
from training.refreshing.report import write_report
from training.refreshing.request import Input, Request
from training.refreshing.settings import RefreshSettings
from training.refreshing.work import Work
from training.release.store import ReleaseStore
from training.sources.table_slates import TableSlates, usable_rows
from training.sources.writing import write_dataset


class Refresh:
    """The steps of one refresh that has not been done before."""

    def __init__(
        self,
        request: Request,
        settings: RefreshSettings,
        here: Processes,
        store: ReleaseStore,
        given: Input,
        work: Work,
        on_step: Callable[[str], None],
    ) -> None:
        assert given.scope is not None
        assert given.identity is not None
        self.request, self.settings, self.here, self.store = request, settings, here, store
        self.champion, self.table, self.scope = given.champion, given.table, given.scope
        self.on_step = on_step
        self.work = work
        self.findings = Findings(
            identity=given.identity,
            champion=given.champion.name,
            scope=given.scope,
            table=request.feedback,
            settings=settings_of(settings),
            facts=None,
            reference=given.champion.facts,
            dropped={},
        )

    def run(self) -> Summary:
        """All steps; the first gate that fails after a step ends it with a refusal."""
        self.work.begin()
        for step in (self.slates, self.train, self.evaluate, self.export):
            self.on_step(step.__name__)
            step()
            if any(not gate.passed for gate in self.findings.gates):
                return self.refuse()
        return self.publish()

    def slates(self) -> None:
        """The rows of the range, their gates, and the dataset."""
        rows, dropped = usable_rows(
            self.table.rows(self.scope.first, self.scope.last), self.table.spec
        )
        facts = measure_rows(rows, self.table.spec)
        gates = data_gates(facts, dropped, self.champion.facts, self.settings.data)
        self.note(facts=facts, dropped=dict(dropped), gates=gates)
        if all(gate.passed for gate in gates) and not self.work.slates.exists():
            self.write_slates(rows, dropped)

    def write_slates(self, rows: pa.Table, dropped: Counter[str]) -> None:
        split = self.settings.split
        source = TableSlates(
            rows,
            self.table.spec,
            {"table": self.scope.table, "first": self.scope.first, "last": self.scope.last},
            self.scope.data_version().fingerprint,
            split.valid,
            split.test,
        )
        write_dataset(source, self.work.slates, fit=False)

    def train(self) -> None:
        """Rerank-DPO from the champion."""
        dataset, spec = read_dataset(self.work.slates)
        training = self.work.once(
            "training",
            Training,
            lambda: train_candidate(
                self.champion,
                self.work.slates,
                dataset,
                spec,
                self.settings,
                self.work.run,
                self.here,
            ),
        )
        self.note(training=training, gates=training_gates(training, self.settings.gates))

    def evaluate(self) -> None:
        """Champion and candidate on the newest slates."""
        evaluation = self.work.once(
            "evaluation",
            Evaluation,
            lambda: evaluate_candidate(
                self.store,
                self.champion,
                self.work.slates,
                self.work.run,
                self.table.spec,
                self.settings,
                self.here.device,
            ),
        )
        self.note(evaluation=evaluation, gates=evaluation_gates(evaluation, self.settings.gates))

    def export(self) -> None:
        """Engines, their parity with the eager model, and their latency."""
        parity = export_candidate(self.work, self.scope, self.settings, self.champion)
        folder = self.store.path(self.champion.name)
        latency = self.work.once(
            "latency", Latency, lambda: measure_latency(self.champion, folder, self.work)
        )
        self.note(latency=latency, gates=(latency_gate(latency, self.settings.gates), *parity))

    def publish(self) -> Summary:
        """The release with its report, installed; promoted only if asked."""
        self.on_step("report")
        write_report(self.work.report, self.findings)
        self.on_step("publish")
        name = publish_candidate(
            self.store, self.champion, self.work, self.findings, self.work.report
        )
        self.on_step("install")
        promoted = put_to_work(
            self.store, name, self.request.repository, self.champion.name, self.request.promote
        )
        self.on_step("clean")
        self.work.remove()
        return self.summary("published", name, self.store.path(name) / "report", promoted)

    def refuse(self) -> Summary:
        """Nothing is published; the report says why."""
        self.findings = msgspec.structs.replace(self.findings, reason=failed(self.findings.gates))
        self.on_step("report")
        write_report(self.work.report, self.findings)
        self.on_step("refuse")
        folder = refusal_folder(self.request.releases, self.findings.identity)
        summary = self.summary("refused", None, folder, False)
        keep_refusal(self.request.releases, summary, self.work.report)
        self.on_step("clean")
        self.work.remove()
        return summary

    def note(self, gates: tuple[Gate, ...], **found: object) -> None:
        """Add to what was found."""
        every = (*self.findings.gates, *gates)
        self.findings = msgspec.structs.replace(self.findings, gates=every, **found)

    def summary(self, outcome: str, release: str | None, report: Path, promoted: bool) -> Summary:
        found = self.findings
        return Summary(
            outcome=outcome,  # type: ignore[arg-type]
            release=release,
            champion=found.champion,
            versions=versions_of(self.scope),
            slates=found.facts.slates if found.facts else 0,
            gates=found.gates,
            report=str(report),
            promoted=promoted,
            identity=found.identity,
            reason=found.reason,
        )


def measure_rows(rows: pa.Table, spec: FeatureSpec) -> DataFacts | None:
    """Facts of usable rows; None where there are none."""
    if not rows.num_rows:
        return None
    slates = encode_table(rows.combine_chunks(), spec)
    return facts_of(slates, float((slates.fallback != "").mean()))
