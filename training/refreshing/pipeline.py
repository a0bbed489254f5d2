"""A refresh from beginning to end: table -> slates -> pairs -> candidate -> gates -> release.

    1 lock, champion, table of the same feature spec       champion.py, lock.py
    2 exact input: which versions, under which identity    request.py, scope.py
    3 gates on the slates                                  data_gates.py
    4 dataset, split by time                               sources/table_slates.py
    5 pairs and Rerank-DPO from the champion               candidate.py
    6 champion and candidate on the newest slates          evaluating.py, gates.py
    7 engines, parity, latency                             publishing.py, latency.py
    8 report, then a release or a refusal                  report.py, publishing.py, refusals.py

Steps 3 to 8 are in steps.py. Each leaves its result in the work folder before the next begins, so
that a refresh which was killed goes on where it was, to the same release.
"""

from __future__ import annotations

from collections.abc import Callable

from contracts.reading import ContractError
from contracts.releases import Gate
from training.distributed import Processes
from training.refreshing.data_gates import data_gates
from training.refreshing.findings import Summary, failed, versions_of
from training.refreshing.lock import refresh_lock
from training.refreshing.publishing import check_rebuildable, put_to_work, release_of
from training.refreshing.refusals import find_refusal
from training.refreshing.request import Input, Request, read_input, work_of
from training.refreshing.settings import RefreshSettings
from training.refreshing.steps import Refresh, measure_rows
from training.release.store import ReleaseStore
from training.sources.table_slates import usable_rows


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
            return Refresh(request, settings, here, store, given, work, on_step).run()
        except OSError as error:
            raise OSError(
                f"{work.folder}: cannot be written: {error}; nothing was published. Make room, "
                "then refresh again: it goes on where it was"
            ) from error


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
        versions=versions_of(given.scope),
        slates=slates,
        gates=gates,
        report=None,
        identity=given.identity,
        reason=failed(gates),
    )


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
        versions=versions_of(given.scope),
        slates=0,
        gates=store.manifest(release).gates,
        report=str(report) if report.exists() else None,
        promoted=promoted,
        identity=given.identity,
        reason="no rows since the champion" if given.scope is None else "done before",
    )
