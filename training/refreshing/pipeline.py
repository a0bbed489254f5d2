"""A refresh from beginning to end: table -> slates -> pairs -> candidate -> gates -> release.

    1 lock, champion, table of the same feature spec       champion.py, lock.py
    2 exact input: which versions, under which identity    scope.py
    3 gates on the slates                                  data_gates.py
    4 dataset, split by time                               sources/table_slates.py
    5 pairs and Rerank-DPO from the champion               candidate.py
    6 champion and candidate on the newest slates          evaluating.py, gates.py
    7 engines, parity, latency                             publishing.py, latency.py
    8 report, then a release or a refusal                  report.py, publishing.py, refusals.py

Each step leaves its result in the work folder before the next begins, so that a refresh which was
killed goes on where it was, to the same release.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pyarrow as pa

from contracts.datasets import read_dataset
from contracts.features import FeatureSpec
from contracts.reading import ContractError
from contracts.releases import Gate, settings_of
from training.data.arrays import encode_table
from training.data.facts import DataFacts, facts_of
from training.distributed import Processes
from training.refreshing.candidate import train_candidate
from training.refreshing.champion import Champion, check_spec, open_champion
from training.refreshing.data_gates import data_gates
from training.refreshing.evaluating import evaluate_candidate
from training.refreshing.findings import Evaluation, Findings, Summary, Training
from training.refreshing.gates import evaluation_gates, latency_gate, training_gates
from training.refreshing.latency import Latency
from training.refreshing.lock import refresh_lock
from training.refreshing.publishing import (
    check_rebuildable,
    export_candidate,
    measure_latency,
    publish_candidate,
    put_to_work,
    release_of,
)
from training.refreshing.refusals import find_refusal, keep_refusal, refusal_folder
from training.refreshing.report import write_report
from training.refreshing.scope import Scope, identity_of, scope_of
from training.refreshing.settings import RefreshSettings
from training.refreshing.work import Work
from training.release.store import ReleaseStore
from training.sources.feedback_table import FeedbackTable
from training.sources.table_slates import TableSlates, usable_rows
from training.sources.writing import write_dataset

WORK = ".refresh"


@dataclass(frozen=True)
class Request:
    """What to refresh; see the command's options."""

    feedback: str
    releases: Path
    repository: Path
    work: Path | None = None
    since: int | None = None
    until: int | None = None
    promote: bool = False
    storage_options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Input:
    """The exact input of a refresh."""

    champion: Champion
    table: FeedbackTable
    scope: Scope | None
    identity: str | None


def refresh(
    request: Request,
    settings: RefreshSettings,
    here: Processes,
    on_step: Callable[[str], None] = lambda _: None,
) -> Summary:
    """Refresh the champion: publish a better release, or refuse and say why.

    Args:
        on_step: called with the name of each step that begins.

    Raises:
        ContractError: the champion, the table or an option is not right, or another refresh runs.
        PublishError, OSError: something cannot be written; nothing was published.
    """
    if not request.releases.is_dir():
        raise ContractError(f"{request.releases}: no such folder of releases")
    with refresh_lock(request.releases):
        given = read_input(request, settings, on_step)
        store = ReleaseStore(request.releases)
        if (done := _done_before(request, store, given, on_step)) is not None:
            return done
        check_rebuildable(given.champion, settings)
        work = work_of(request, given)
        try:
            return _Refresh(request, settings, here, store, given, work, on_step).run()
        except OSError as error:
            raise OSError(
                f"{work.folder}: cannot be written: {error}; nothing was published. Make room, "
                "then refresh again: it goes on where it was"
            ) from error


def work_of(request: Request, given: Input) -> Work:
    """The work folder of an input."""
    assert given.identity is not None
    return Work(request.work or request.releases / WORK, given.identity)


def dry_run(
    request: Request, settings: RefreshSettings, on_step: Callable[[str], None] = lambda _: None
) -> Summary:
    """What ``refresh`` would do, up to the gates on the slates; changes nothing, takes no lock."""
    given = read_input(request, settings, on_step)
    name = given.champion.name
    gates: tuple[Gate, ...] = ()
    slates = 0
    if given.scope is not None:
        check_rebuildable(given.champion, settings)
        on_step("slates")
        rows, dropped = usable_rows(
            given.table.rows(given.scope.first, given.scope.last), given.table.spec
        )
        gates = data_gates(
            measure_rows(rows, given.table.spec), dropped, given.champion.facts, settings.data
        )
        slates = rows.num_rows
    return Summary(
        outcome="dry-run",
        release=None
        if given.identity is None
        else release_of(ReleaseStore(request.releases), given.identity),
        champion=name,
        versions=_versions(given.scope),
        slates=slates,
        gates=gates,
        report=None,
        identity=given.identity,
        reason=_failed(gates),
    )


def read_input(
    request: Request, settings: RefreshSettings, on_step: Callable[[str], None]
) -> Input:
    """Champion, table and range of versions, checked against one another."""
    on_step("champion")
    champion = open_champion(ReleaseStore(request.releases))
    on_step("table")
    table = FeedbackTable(request.feedback, request.storage_options)
    check_spec(champion, table)
    scope = scope_of(champion, table, request.since, request.until)
    identity = None if scope is None else identity_of(champion, scope, settings)
    return Input(champion, table, scope, identity)


def measure_rows(rows: pa.Table, spec: FeatureSpec) -> DataFacts | None:
    """Facts of usable rows; None where there are none."""
    if not rows.num_rows:
        return None
    slates = encode_table(rows.combine_chunks(), spec)
    return facts_of(slates, float((slates.fallback != "").mean()))


def _done_before(
    request: Request, store: ReleaseStore, given: Input, on_step: Callable[[str], None]
) -> Summary | None:
    """What came of this input already; a release is installed and promoted where that is missing.

    Without rows since the champion there is nothing to do either.
    """
    champion = given.champion.name
    release: str | None = champion
    if given.identity is not None:
        if (refusal := find_refusal(request.releases, given.identity)) is not None:
            work_of(request, given).remove()
            return refusal
        release = release_of(store, given.identity)
        if release is None:
            return None
        work_of(request, given).remove()
    assert release is not None
    on_step("install")
    promoted = put_to_work(store, release, request.repository, champion, request.promote)
    report = store.path(release) / "report"
    return Summary(
        outcome="unchanged",
        release=release,
        champion=champion,
        versions=_versions(given.scope),
        slates=0,
        gates=store.manifest(release).gates,
        report=str(report) if report.exists() else None,
        promoted=promoted,
        identity=given.identity,
        reason="no rows since the champion" if given.scope is None else "done before",
    )


class _Refresh:
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
        self.findings = msgspec.structs.replace(self.findings, reason=_failed(self.findings.gates))
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
            versions=_versions(self.scope),
            slates=found.facts.slates if found.facts else 0,
            gates=found.gates,
            report=str(report),
            promoted=promoted,
            identity=found.identity,
            reason=found.reason,
        )


def _versions(scope: Scope | None) -> tuple[int, int] | None:
    return None if scope is None else (scope.first, scope.last)


def _failed(gates: tuple[Gate, ...]) -> str:
    """Why a refresh is refused, or "" if every gate passed."""
    return "; ".join(
        f"{gate.name} is {gate.value:.4g}, limit {gate.limit:.4g}: {gate.detail}"
        for gate in gates
        if not gate.passed
    )
