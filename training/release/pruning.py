"""Deleting old releases, but none that something still needs."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from contracts.reading import ContractError
from contracts.releases import MANIFEST
from training.release.catalog import (
    number,
    pruned_file,
    read_manifest,
    release_names,
    release_path,
    verify,
)
from training.release.champion_record import read_record
from training.release.durable import fsync, write_durably
from training.release.lineage import lineage
from training.release.release_names import next_name, remember_name

REMOVING = ".removing-"


@dataclass(frozen=True)
class PrunePlan:
    """What goes, and what stays for which reason. Both oldest first."""

    delete: tuple[str, ...]
    keep: dict[str, str]


def plan_pruning(releases: Path, keep: int, protected: Collection[str]) -> PrunePlan:
    """Decide what to delete.

    Raises:
        ContractError: ``keep`` is below 1, there is no champion, or a manifest cannot be read: what
            is needed is not known then, and nothing may be deleted.
    """
    if keep < 1:
        raise ContractError(f"keep is {keep}; allowed: at least 1")
    names = release_names(releases)
    record = read_record(releases)
    release_path(releases, record.release)  # or something is wrong that comes first
    reasons: dict[str, str] = dict.fromkeys(names[-keep:], "among the newest")
    reasons |= {name: "named by an experiment" for name in names if name in protected}
    earlier = tuple(name for name in record.earlier if name != record.release)
    if target := _rollback_target(releases, earlier):
        reasons[target] = "a rollback goes back to it"
    reasons[record.release] = "champion"
    for name in names:
        read_manifest(releases, name)
    for name in [name for name in names if name in reasons]:
        anchor = lineage(releases, name)[-1]
        if anchor.state == "present":
            reasons.setdefault(anchor.name, f"anchor of {name}")
    return PrunePlan(
        delete=tuple(name for name in names if name not in reasons),
        keep={name: reasons[name] for name in names if name in reasons},
    )


def _rollback_target(releases: Path, earlier: tuple[str, ...]) -> str | None:
    """The release that a rollback would take back now."""
    for name in earlier:
        try:
            verify(releases, name)
        except ContractError:
            continue
        return name
    return None


def prune(releases: Path, lock: int, keep: int, protected: Collection[str]) -> PrunePlan:
    """Delete what ``plan_pruning`` says. The caller holds the lock.

    Each release's manifest is put by, then its folder loses its name in one rename, and only then
    are its files deleted: at no moment is half a release to be seen.
    """
    remove_leftovers(releases)
    plan = plan_pruning(releases, keep, protected)
    if plan.delete:
        last = number(next_name(releases, lock)) - 1
        remember_name(lock, f"r{last:04d}")  # no name is given twice, whatever is deleted
    for name in plan.delete:
        kept = pruned_file(releases, name)
        kept.parent.mkdir(exist_ok=True)
        write_durably(kept, (releases / name / MANIFEST).read_bytes())
        fsync(releases)
        aside = releases / f"{REMOVING}{name}"
        (releases / name).rename(aside)
        fsync(releases)
        shutil.rmtree(aside)
    return plan


def remove_leftovers(releases: Path) -> None:
    """Finish what a killed prune began. Under the lock no other is at it."""
    for path in releases.glob(f"{REMOVING}*"):
        if path.is_symlink() or not path.is_dir():
            path.unlink()
        else:
            shutil.rmtree(path)
