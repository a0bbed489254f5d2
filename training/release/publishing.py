"""Publishing a release: build aside, check, make durable, and only then give it its name.

    releases/r0007/
      manifest.json                      contracts.releases.ReleaseManifest
      features.yaml
      checkpoint.pt                      what the engines were made from, for the next refresh
      report/                            of the run that made it, where there is one
      repository/gref_r0007_encoder/     config.pbtxt, warmup/, 1/model.py, 1/model.pt
      repository/gref_r0007_decoder/     config.pbtxt, 1/model.py, 1/model.pt
      repository/gref_r0007/             config.pbtxt, 1/ (holds no engine)

A release appears by one rename of a complete, synced folder, so a crash at any moment leaves
either all of it or nothing but a ``.staging-*`` folder, which the next publisher removes.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from math import isfinite
from pathlib import Path

import msgspec

from contracts.champion import CHAMPION_FILE
from contracts.features import FeatureSpec
from contracts.reading import ContractError
from contracts.releases import (
    DataVersion,
    Engine,
    Gate,
    Parents,
    verify_release,
)
from training.engines.gates import missing_gates
from training.release.attachments import check_checkpoint
from training.release.building import build
from training.release.catalog import release_names, release_path
from training.release.champion_record import command, set_champion
from training.release.durable import fsync, fsync_tree
from training.release.engines_folder import EnginesFile, read_engines_folder
from training.release.interface_check import check_engines
from training.release.profiles import check_engines_serve
from training.release.pruning import remove_leftovers
from training.release.release_names import (
    PublishError,
    next_name,
    publisher_lock,
    remember_name,
)
from training.release.serving_settings import ServingSettings
from training.release.stamping import (
    ReleaseFacts,
)

_STAGING = ".staging-"


class GateRefusedError(PublishError):
    """A gate did not pass, or was not run; nothing was published."""


def publish(
    engines_folder: Path,
    releases: Path,
    serving: ServingSettings | None = None,
    *,
    parents: Parents | None = None,
    data: DataVersion | None = None,
    gates: tuple[Gate, ...] = (),
    metrics: Mapping[str, float] | None = None,
    report: Path | None = None,
    graph_parity: bool = False,
    wait_s: float = 60.0,
    on_step: Callable[[str], None] = lambda _: None,
) -> Path:
    """Publish exported engines as the next release.

    Args:
        engines_folder: see ``training/release/engines_folder.py``.
        releases: the folder of releases; made if it is not there. The first release that it ever
            holds becomes the champion; a later one only where somebody says so.
        parents, data: in place of what the export noted. A parent release must lie in ``releases``.
        gates: in addition to the export's; one that failed refuses the release.
        metrics: in addition to the export's held-out scores.
        report: a folder, or a file, that is kept in the release as ``report/``.
        graph_parity: accept engines of which only the graph has passed the parity gates.
        wait_s: seconds to wait for another publisher.
        on_step: called with the name of each step once it is done, for progress.

    Returns:
        The folder of the new release, verified.

    Raises:
        ContractError: the engines folder, an engine, the checkpoint, the report, the parent, or a
            base configuration is not right.
        GateRefusedError: a gate failed or is missing.
        PublishError: another publisher is at work, or the folder cannot be written.
    """
    serving = serving or ServingSettings()
    engines, spec = read_engines_folder(engines_folder)
    engines = msgspec.structs.replace(
        engines,
        parents=parents or engines.parents,
        data=data or engines.data,
        gates=(*engines.gates, *gates),
        metrics={**engines.metrics, **(metrics or {})},
    )
    check_engines_serve(engines.engines, serving)
    check_gates(engines, graph_parity)
    if odd := [name for name, value in engines.metrics.items() if not isfinite(value)]:
        raise ContractError(f"metric {odd[0]} is not a finite number; leave it out")
    check_checkpoint(engines_folder, engines, spec)
    width_D = _width(engines_folder, engines, spec)
    on_step("checked")
    try:
        releases.mkdir(parents=True, exist_ok=True)
        with publisher_lock(releases, wait_s) as lock:
            _remove_leftovers(releases)
            if engines.parents.release is not None:
                release_path(releases, engines.parents.release)
            first = not (release_names(releases) or (releases / CHAMPION_FILE).exists())
            name = next_name(releases, lock)
            staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=releases))
            try:
                staging.chmod(0o755)  # mkdtemp makes it private; servers run as another user
                facts = ReleaseFacts(
                    name,
                    spec,
                    width_D,
                    engines.heads,
                    _sha256(engines),
                    {engine.part: engine.tensors for engine in engines.engines},
                    engines.engine("encoder").compute_capability is not None,
                    engines.engine("encoder").format,
                    _compiled_for(engines.engine("encoder")),
                )
                build(staging, engines_folder, engines, facts, serving, report, on_step)
                fsync_tree(staging)
                on_step("synced")
                verify_release(staging)
                remember_name(lock, name)
                on_step("verified")
                staging.rename(releases / name)
                on_step("renamed")
                fsync(releases)
            except BaseException:
                shutil.rmtree(staging, ignore_errors=True)
                raise
            if first:
                _crown(releases, name)
                on_step("champion")
    except OSError as error:
        raise PublishError(
            f"{releases}: cannot write the release: {error}; nothing was published; "
            "make room or give write access, then publish again"
        ) from error
    return releases / name


def check_gates(engines: EnginesFile, graph_parity: bool = False) -> None:
    """Raises GateRefusedError unless every gate passed and the parity gates are among them."""
    gates = engines.gates
    failed = [gate for gate in gates if not gate.passed]
    if failed:
        told = "; ".join(f"{g.name} is {g.value:g}, limit {g.limit:g} {g.detail}" for g in failed)
        raise GateRefusedError(f"gates failed: {told}; nothing was published")
    names = [gate.name for gate in gates]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ContractError(f"gate {twice} is there twice; give each gate a name of its own")
    if odd := [gate.name for gate in gates if not isfinite(gate.value + gate.limit)]:
        raise ContractError(f"gate {odd[0]}: value or limit is not a finite number")
    missing = missing_gates(gates, engines.engine("encoder").precision, graph_parity)
    if missing:
        raise GateRefusedError(f"{missing}; nothing was published")


def _width(folder: Path, engines: EnginesFile, spec: FeatureSpec) -> int:
    """D, after a run of the engines; of other formats the export has run them and noted it."""
    encoder, decoder = engines.engine("encoder"), engines.engine("decoder")
    if encoder.format == "torchscript":
        return check_engines(folder / encoder.file, folder / decoder.file, spec)
    if engines.width is None:
        raise ContractError(f"{folder}: engines.json has no width; export again")
    return engines.width


def _compiled_for(encoder: Engine) -> dict[str, str]:
    """CPU and torch that a package must find; TorchScript runs on any."""
    if encoder.format != "aotinductor":
        return {}
    return {name: encoder.versions[name] for name in ("cpu", "torch") if name in encoder.versions}


def _sha256(engines: EnginesFile) -> dict[str, str]:
    return {engine.part: engines.files[engine.file] for engine in engines.engines}


def _remove_leftovers(releases: Path) -> None:
    """Under the lock no publisher is alive, so whatever is staged was left by a crash."""
    for path in releases.glob(f"{_STAGING}*"):
        shutil.rmtree(path)
    remove_leftovers(releases)


def _crown(releases: Path, name: str) -> None:
    try:
        set_champion(releases, name, "the first release")
    except OSError as error:
        raise PublishError(
            f"{releases}: {name} is published, but could not be made the champion: {error}; "
            f"make room, then: {command(releases, f'champion {name}')}"
        ) from error
