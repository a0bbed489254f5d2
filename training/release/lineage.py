"""Where a release came from: parent by parent back to the anchor, whose parent is none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from contracts.reading import read_json
from contracts.releases import ReleaseManifest
from training.release.catalog import DamagedError, number, pruned_file, read_manifest


@dataclass(frozen=True)
class Ancestor:
    """A step of a lineage.

    Attributes:
        state: ``pruned`` where only the manifest was kept, ``missing`` where not even that is there
            (somebody deleted the folder); a lineage ends at what is missing.
    """

    name: str
    state: Literal["present", "pruned", "missing"]
    manifest: ReleaseManifest | None

    @property
    def parent(self) -> str | None:
        return self.manifest.parents.release if self.manifest else None


def lineage(releases: Path, name: str) -> list[Ancestor]:
    """A release and its ancestors, the anchor last.

    Raises:
        DamagedError: a manifest on the way cannot be read, or names a parent that is not older.
        ContractError: there is no release of that name, nor was there.
    """
    steps = [_step(releases, name)]
    if steps[0].state == "missing":
        read_manifest(releases, name)  # says that there is none
    while parent := steps[-1].parent:
        if number(parent) >= number(steps[-1].name):
            raise DamagedError(
                f"{releases}: {steps[-1].name} names {parent} as its parent; allowed: an older one"
            )
        steps.append(_step(releases, parent))
    return steps


def _step(releases: Path, name: str) -> Ancestor:
    if (releases / name).is_dir():
        return Ancestor(name, "present", read_manifest(releases, name))
    kept = pruned_file(releases, name)
    if kept.exists():
        try:
            return Ancestor(name, "pruned", read_json(kept, ReleaseManifest))
        except ValueError as error:
            raise DamagedError(str(error)) from error
    return Ancestor(name, "missing", None)
