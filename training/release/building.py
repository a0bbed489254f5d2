"""Writing the files of a release: engines, configurations, checkpoint, report, manifest."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from contracts.reading import ContractError, write_json, write_yaml
from contracts.releases import (
    CHECKPOINT,
    MANIFEST,
    REPORT,
    Engine,
    ReleaseManifest,
    file_sha256,
    settings_of,
)
from training.release.attachments import copy_report
from training.release.engines_folder import FEATURES_FILE, EnginesFile
from training.release.serving_settings import ServingSettings
from training.release.stamping import (
    ENGINE_FILE,
    Part,
    ReleaseFacts,
    model_name,
    stamp,
    to_text,
    warmup_files,
)

BACKEND_FILE = Path(__file__).resolve().parents[2] / "handlers" / "triton_backend.py"
REPOSITORY = "repository"
PARTS: tuple[Part, ...] = ("encoder", "decoder", "ensemble")


def build(
    staging: Path,
    engines_folder: Path,
    engines: EnginesFile,
    facts: ReleaseFacts,
    serving: ServingSettings,
    report: Path | None,
    on_step: Callable[[str], None],
) -> None:
    """Write a complete release into an empty folder.

    Raises:
        ContractError: a base configuration or the report is not right, or what was checked in the
            engines folder has changed since.
    """
    if CHECKPOINT in engines.files:
        shutil.copyfile(engines_folder / CHECKPOINT, staging / CHECKPOINT)
    if report is not None:
        copy_report(report, staging / REPORT)
    moved = []
    for engine in engines.engines:
        version = staging / REPOSITORY / model_name(facts.name, engine.part) / "1"
        version.mkdir(parents=True)
        shutil.copyfile(engines_folder / engine.file, version / ENGINE_FILE)
        shutil.copyfile(BACKEND_FILE, version / "model.py")
        file = str((version / ENGINE_FILE).relative_to(staging))
        moved.append(msgspec.structs.replace(engine, file=file))
    # Triton wants the version folder of an ensemble; a file in it survives copies by object stores.
    version = staging / REPOSITORY / model_name(facts.name, "ensemble") / "1"
    version.mkdir(parents=True)
    (version / ".keep").touch()
    on_step("engines")
    for part in PARTS:
        folder = staging / REPOSITORY / model_name(facts.name, part)
        text = to_text(stamp(part, facts, serving), part, facts.name)
        (folder / "config.pbtxt").write_text(text, encoding="utf-8")
    warmup = staging / REPOSITORY / model_name(facts.name, "encoder") / "warmup"
    for file, content in warmup_files(serving, facts.spec).items():
        warmup.mkdir(exist_ok=True)
        (warmup / file).write_bytes(content)
    write_yaml(staging / FEATURES_FILE, facts.spec)
    on_step("configured")
    write_json(staging / MANIFEST, _manifest(staging, engines, facts, serving, tuple(moved)))
    on_step("manifest")


def _manifest(
    staging: Path,
    engines: EnginesFile,
    facts: ReleaseFacts,
    serving: ServingSettings,
    moved: tuple[Engine, ...],
) -> ReleaseManifest:
    files = {
        str(path.relative_to(staging)): file_sha256(path)
        for path in sorted(staging.rglob("*"))
        if path.is_file()
    }
    for engine in moved:  # the copy must be what was checked, not what lies there by now
        if files[engine.file] != facts.engine_sha256[engine.part]:
            raise ContractError(f"{engine.part} engine changed while it was published; try again")
    if files.get(CHECKPOINT) != engines.files.get(CHECKPOINT):
        raise ContractError("the checkpoint changed while it was published; try again")
    return ReleaseManifest(
        name=facts.name,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        parents=engines.parents,
        data=engines.data,
        feature_spec_sha256=facts.spec.hash(),
        list_size=facts.spec.list_size,
        heads=facts.heads,
        profile=serving.profile,
        settings={**engines.settings, "serving": settings_of(serving)},
        gates=engines.gates,
        engines=moved,
        files=files,
        metrics=engines.metrics,
    )
