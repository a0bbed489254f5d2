"""What a release carries beside its engines: the checkpoint and the report of its run."""

from __future__ import annotations

import shutil
from pathlib import Path

from contracts.features import FeatureSpec
from contracts.reading import ContractError
from contracts.releases import CHECKPOINT
from training.checkpoint import load_checkpoint
from training.release.engines_folder import EnginesFile


def check_checkpoint(folder: Path, engines: EnginesFile, spec: FeatureSpec) -> None:
    """Is the checkpoint of an engines folder one that a refresh can start from?

    A folder of an older export has none; its release can be served all the same.

    Raises:
        ContractError: it is damaged, does not fit its own settings, or has another feature spec.
    """
    if CHECKPOINT not in engines.files:
        return
    checkpoint = load_checkpoint(folder / CHECKPOINT)
    if checkpoint.spec.hash() != spec.hash():
        raise ContractError(
            f"{folder / CHECKPOINT}: feature spec {checkpoint.spec.hash()[:12]}, the engines' "
            f"{spec.hash()[:12]}; export again"
        )
    checkpoint.model()


def copy_report(report: Path, target: Path) -> None:
    """Copy a report, a folder or one file, into a release.

    Raises:
        ContractError: there is none, or it holds a link, whose target the release would not keep.
    """
    if not report.exists():
        raise ContractError(f"{report}: no such report")
    if report.is_file():
        target.mkdir()
        shutil.copyfile(report, target / report.name)
        return
    if link := next((path for path in sorted(report.rglob("*")) if path.is_symlink()), None):
        raise ContractError(f"{link}: a link; allowed in a report: files and folders")
    shutil.copytree(report, target, copy_function=shutil.copyfile)
