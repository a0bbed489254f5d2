"""What Kubernetes is given, so that git is the source of truth: files made of manifests and record.

    routing.json   what clients and starting servers read (deploy/kubernetes/base/experiments)
    undo.json      a routing of the champion before this one, so that a server that starts later has
                   it loaded, too, and a rollback takes effect at once everywhere

The same manifests and record give the same bytes.
"""

from __future__ import annotations

from pathlib import Path

from contracts.routing import ROUTING_FILE
from deploy.rolling.changes import to_json
from deploy.rolling.situation import Places, compiled
from deploy.rolling.switching import UNDO_FILE, undo_of
from training.release.durable import write_durably


def rendered(places: Places) -> dict[str, bytes]:
    """The files by name.

    Raises:
        ContractError: manifests or record are damaged, or contradict one another.
    """
    routing = compiled(places)
    for release in routing.releases:
        places.store.manifest(release)
    undo = undo_of(places.store.record())
    return {ROUTING_FILE: to_json(routing), UNDO_FILE: to_json(undo)}


def outdated(folder: Path, files: dict[str, bytes]) -> list[str]:
    """Which of the files are missing in the folder, or say something else."""
    return [
        name
        for name, content in files.items()
        if not (folder / name).is_file() or (folder / name).read_bytes() != content
    ]


def write_rendered(folder: Path, files: dict[str, bytes]) -> list[str]:
    """Write what is outdated, each file in one rename; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    changed = outdated(folder, files)
    for name in changed:
        write_durably(folder / name, files[name])
    return changed
