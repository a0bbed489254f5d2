"""Refusals: ``releases/refusals/<identity>/`` keeps why, as a summary and the report."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from contracts.reading import ContractError, read_json, write_json
from training.refreshing.findings import Summary
from training.release.durable import fsync_tree

REFUSALS, SUMMARY = "refusals", "summary.json"


def refusal_folder(releases: Path, identity: str) -> Path:
    """Where the refusal of an input lies."""
    return releases / REFUSALS / identity[:16]


def find_refusal(releases: Path, identity: str) -> Summary | None:
    """The refusal of an input, if it was refused before.

    Raises:
        ContractError: its summary is damaged.
    """
    folder = refusal_folder(releases, identity)
    if not folder.exists():
        return None
    try:
        return read_json(folder / SUMMARY, Summary)
    except ContractError as error:
        raise ContractError(f"{error}; remove {folder} to refresh again") from error


def keep_refusal(releases: Path, summary: Summary, report: Path) -> None:
    """Keep a refusal and its report: built aside, then renamed."""
    assert summary.identity is not None
    folder = refusal_folder(releases, summary.identity)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copytree(report, aside)
        write_json(aside / SUMMARY, summary)
        fsync_tree(aside)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
