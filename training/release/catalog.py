"""What lies in a folder of releases: names, folders, manifests, and manifests of the pruned."""

from __future__ import annotations

from pathlib import Path

from contracts.reading import ContractError, read_json
from contracts.releases import MANIFEST, RELEASE_NAME, ReleaseManifest, verify_release
from training.release.release_names import PRUNED


class DamagedError(ContractError):
    """A release is not what its manifest says, or its manifest cannot be read."""


def number(name: str) -> int:
    """7 of r0007. Names sort by it; as text, r10000 would come before r9999."""
    return int(name[1:])


def release_names(releases: Path) -> tuple[str, ...]:
    """The releases of a folder, oldest first; none where there is no folder yet."""
    if not releases.is_dir():
        return ()
    found = (path.name for path in releases.iterdir() if path.is_dir())
    return tuple(sorted(filter(RELEASE_NAME.match, found), key=number))


def release_path(releases: Path, name: str) -> Path:
    """The folder of a release; raises ContractError where there is none of that name."""
    if not RELEASE_NAME.match(name):
        raise ContractError(f"{name!r} is no release; allowed: r and at least four digits (r0001)")
    if not (releases / name).is_dir():
        raise ContractError(f"{releases}: no release {name}{_instead(releases, name)}")
    return releases / name


def _instead(releases: Path, name: str) -> str:
    if (kept := pruned_file(releases, name)).exists():
        return f" any more: it was pruned; its manifest is {kept}"
    there = release_names(releases)
    return f"; the newest is {there[-1]}" if there else "; publish one (training/publish.py)"


def read_manifest(releases: Path, name: str) -> ReleaseManifest:
    """The manifest of a release, its files unread.

    Raises:
        DamagedError: it cannot be read, or is another release's.
        ContractError: there is no such release.
    """
    path = release_path(releases, name) / MANIFEST
    try:
        manifest = read_json(path, ReleaseManifest)
    except ContractError as error:
        raise DamagedError(str(error)) from error
    if manifest.name != name:
        raise DamagedError(
            f"{path}: names {manifest.name}; a release must not be renamed or copied"
        )
    return manifest


def verify(releases: Path, name: str) -> ReleaseManifest:
    """Read a release's manifest and check every file against it.

    Raises:
        DamagedError: a file is missing, altered or not in the manifest.
        ContractError: there is no such release.
    """
    read_manifest(releases, name)
    try:
        return verify_release(releases / name)
    except ContractError as error:
        raise DamagedError(str(error)) from error


def pruned_file(releases: Path, name: str) -> Path:
    """Where the manifest of a pruned release is kept."""
    return releases / PRUNED / f"{name}.json"
