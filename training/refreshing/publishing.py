"""From a candidate that passed to a release, and what comes after: install it, promote it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from contracts.reading import ContractError, convert, write_json
from contracts.releases import Gate, Parents, ReleaseManifest, settings_of
from training.checkpoint import load_checkpoint
from training.data.arrays import load_slates
from training.engines.formats import EngineSettings, engine_format
from training.export import export_engines, requests_of
from training.refreshing.candidate import BEST
from training.refreshing.champion import Champion
from training.refreshing.findings import Findings
from training.refreshing.latency import Latency, measure
from training.refreshing.scope import Scope
from training.refreshing.settings import RefreshSettings
from training.refreshing.work import Work
from training.release.engines_folder import ENGINES_FILE, EnginesFile, read_engines_folder
from training.release.installing import install
from training.release.publishing import publish
from training.release.serving_settings import ServingSettings
from training.release.store import ReleaseStore

#: The manifest's settings hold under this name what a refresh adds to those of the training.
REFRESH = "refresh"


def export_candidate(
    work: Work, scope: Scope, settings: RefreshSettings, champion: Champion
) -> tuple[Gate, ...]:
    """Engines of the candidate in the work folder, unless they are there; their parity gates.

    Raises:
        ContractError: this machine cannot build engines like the champion's; says what it needs.
    """
    if not (work.engines / ENGINES_FILE).exists():
        checkpoint = load_checkpoint(work.run / BEST)
        slates = load_slates(work.slates / "test", checkpoint.spec, settings.parity_requests)
        export_engines(
            checkpoint,
            requests_of(slates, checkpoint.spec),
            scope.data_version(),
            work.engines,
            settings.mode,
            engine=engines_like(champion.manifest),
        )
    return read_engines_folder(work.engines)[0].gates


def engines_like(manifest: ReleaseManifest) -> EngineSettings:
    """The champion's format, precision and target: where it is served, the candidate will be."""
    encoder = next(engine for engine in manifest.engines if engine.part == "encoder")
    kept = ("format", "precision", "compute_capability", "container", "max_batch")
    stated = {name: value for name in kept if (value := getattr(encoder, name)) is not None}
    if "cpu" in encoder.versions:
        stated["cpu"] = encoder.versions["cpu"]
    return convert(stated, EngineSettings, f"{manifest.name}: its encoder engine")


def check_rebuildable(champion: Champion, settings: RefreshSettings) -> None:
    """Before hours of training: can this machine build engines like the champion's?

    Raises:
        ContractError: no; says what it needs.
    """
    wanted = engines_like(champion.manifest)
    try:
        engine_format(wanted.format).check(wanted, settings.mode)
    except ContractError as error:
        raise ContractError(
            f"no engines like the champion's ({champion.name}) can be built here: {error}"
        ) from error


def measure_latency(champion: Champion, champion_folder: Path, work: Work) -> Latency:
    """The candidate's engines against the champion's, on held-out requests."""
    engines, spec = read_engines_folder(work.engines)
    slates = load_slates(work.slates / "test", spec, 32)
    request = next(requests_of(slates, spec))
    return measure(
        champion_folder,
        champion.manifest.engines,
        work.engines,
        engines.engines,
        request,
        spec.list_size,
    )


def publish_candidate(
    store: ReleaseStore, champion: Champion, work: Work, findings: Findings, report: Path
) -> str:
    """Publish the engines of the work folder with all that was found; the release's name."""
    engines, _ = read_engines_folder(work.engines)
    noted = {
        "identity": findings.identity,
        "settings": findings.settings,
        "facts": settings_of(findings.facts) if findings.facts else {},
        "dropped": findings.dropped,
    }
    named = msgspec.structs.replace(engines, settings={**engines.settings, REFRESH: noted})
    _write_engines(work.engines / ENGINES_FILE, named)
    parity = {gate.name for gate in engines.gates}
    release = publish(
        work.engines,
        store.folder,
        serving_of(champion.manifest),
        parents=Parents(
            release=champion.name,
            anchor=champion.manifest.parents.anchor,
            reference_sha256=champion.weights_sha256,
        ),
        data=findings.scope.data_version(),
        gates=tuple(gate for gate in findings.gates if gate.name not in parity),
        metrics=_metrics(findings),
        report=report,
    )
    return release.name


def _write_engines(path: Path, engines: EnginesFile) -> None:
    aside = path.with_name(f".{path.name}.new")
    write_json(aside, engines)
    aside.rename(path)


def serving_of(manifest: ReleaseManifest) -> ServingSettings:
    """The champion's serving settings: a refresh changes the weights, not how they are served."""
    plain = manifest.settings.get("serving")
    return (
        convert(plain, ServingSettings, f"{manifest.name}: settings.serving")
        if plain
        else (ServingSettings())
    )


def _metrics(findings: Findings) -> dict[str, float]:
    if findings.evaluation is None:
        return {}
    return {
        f"{result.metric}/{result.method}": result.value.estimate
        for result in findings.evaluation.judged.comparison.results
    }


def release_of(store: ReleaseStore, identity: str) -> str | None:
    """The release that was published for this input, the newest where there are several."""
    for name in reversed(store.names()):
        try:
            noted = store.manifest(name).settings.get(REFRESH)
        except ContractError:
            continue  # a damaged release of long ago is not this refresh's concern
        if isinstance(noted, dict) and noted.get("identity") == identity:
            return name
    return None


def put_to_work(
    store: ReleaseStore, name: str, repository: Path, champion: str, promote: bool
) -> bool:
    """Install a release where Triton serves from, and promote it if asked; both idempotent.

    It is not promoted over a champion that somebody has named since this refresh began.

    Returns:
        Whether it is the champion now.
    """
    install(store.path(name), repository)
    if promote:
        store.set_champion(name, f"refresh of {champion}", expected=champion)
    return store.record().release == name
