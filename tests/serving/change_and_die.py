"""Change a store, or a served repository, in processes that are killed. Not a test itself.

    python change_and_die.py ACTION TEMPLATE FOLDER

For k = 1, 2, ... FOLDER is made afresh from TEMPLATE, and a forked child does ACTION in it and
sends itself SIGKILL when it is about to do its k-th operation on a file; the last child finds fewer
than k. After each, prints a line of JSON with what is to be seen in FOLDER, and again after ACTION
was repeated by a process that lives.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contracts.reading import ContractError
from training.release.installing import install, uninstall
from training.release.store import ReleaseStore

OPERATIONS = {"open", "os.mkdir", "os.rename", "os.rmdir", "os.remove", "os.chmod"}


def main() -> None:
    action, template, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    change, show = ACTIONS[action]
    operation, alive = 1, False
    while not alive:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(template, folder, symlinks=True)
        alive = not killed_at(operation, change, folder)
        told = {"operation": operation, "killed": not alive, "seen": show(folder)}
        change(folder)
        print(json.dumps({**told, "repeated": show(folder)}))
        operation += 1


def killed_at(operation: int, change: Callable[[Path], Any], folder: Path) -> bool:
    """Do the change in a child that dies at an operation; whether it died."""
    child = os.fork()
    if child == 0:
        seen = 0

        def count() -> None:
            nonlocal seen
            seen += 1
            if seen == operation:
                os.kill(os.getpid(), signal.SIGKILL)

        def audit(event: str, arguments: tuple[object, ...]) -> None:
            # What rmtree and fsync work on is a descriptor or a bare name: all of them count.
            if event in OPERATIONS:
                count()

        sync, write = os.fsync, os.pwrite
        os.fsync = lambda file: (count(), sync(file))[1]  # type: ignore[assignment]
        os.pwrite = lambda *given: (count(), write(*given))[1]  # type: ignore[assignment]
        sys.addaudithook(audit)
        change(folder)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"the change failed at operation {operation}")
    return os.WIFSIGNALED(status)


def show_store(folder: Path) -> dict[str, Any]:
    """What the store says; each release that it names is verified, each lineage walked."""
    store = ReleaseStore(folder)
    return {
        "champion": store.champion(),
        "changes": len(store.record().changes),
        "names": [store.verify(name).name for name in store.names()],
        "anchors": [store.lineage(name)[-1].name for name in store.names()],
        "others": sorted(path.name for path in folder.iterdir() if path.name.startswith(".")),
    }


def show_repository(folder: Path) -> dict[str, Any]:
    """Models by the names that a Triton would load, each with its files."""
    models = sorted(path for path in (folder / "served").iterdir() if path.name[0] != ".")
    aside = sorted(
        path.name
        for path in (folder / "served").iterdir()
        if path.name[0] == "." and path.name != ".publish.lock"
    )
    files = {
        path.name: sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file())
        for path in models
    }
    return {"models": files, "aside": aside}


def roll_back_once(folder: Path) -> None:
    """A rollback that is repeated would go further back: the caller looks first, as people do."""
    store = ReleaseStore(folder)
    if store.record().release == "r0003":
        store.rollback("worse")


def prune(folder: Path) -> None:
    store = ReleaseStore(folder)
    try:
        store.prune(1)
    except ContractError as error:
        raise SystemExit(str(error)) from error


ACTIONS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], dict[str, Any]]]] = {
    "champion": (lambda folder: ReleaseStore(folder).set_champion("r0002", "why"), show_store),
    "rollback": (roll_back_once, show_store),
    "prune": (prune, show_store),
    "install": (lambda folder: install(folder / "r0001", folder / "served"), show_repository),
    "uninstall": (lambda folder: uninstall("r0001", folder / "served"), show_repository),
}

if __name__ == "__main__":
    main()
