"""Publish in child processes that are killed, each at another file operation. Not a test itself.

    python publish_and_die.py ENGINES RELEASES CHECK_RELEASES...

For k = 1, 2, ... a forked child publishes and sends itself SIGKILL when Python is about to do its
k-th operation on a file below RELEASES; the last child finds fewer than k and ends well. After
each one, prints a line of JSON: what lies in RELEASES, and which of the releases verify.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch

from contracts.champion import CHAMPION_FILE, ChampionFile
from contracts.reading import read_json
from contracts.releases import RELEASE_NAME, verify_release
from training.release.publishing import publish

OPERATIONS = {"open", "os.mkdir", "os.rename", "os.rmdir", "os.remove", "os.chmod", "os.utime"}


def killed_at(operation: int, engines: Path, releases: Path) -> bool:
    """Publish in a child that dies at an operation; whether it died."""
    child = os.fork()
    if child == 0:
        seen = 0

        def audit(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal seen
            if event not in OPERATIONS or str(releases) not in str(arguments[0]):
                return
            seen += 1
            if seen == operation:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(audit)
        publish(engines, releases)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status):
        raise SystemExit(f"publishing failed at operation {operation}")
    return False


def main() -> None:
    torch.set_num_threads(1)
    engines, releases = map(Path, sys.argv[1:])
    operation = 1
    alive = False
    while not alive:
        alive = not killed_at(operation, engines, releases)
        names = sorted(path.name for path in releases.iterdir()) if releases.exists() else []
        whole = [n for n in names if RELEASE_NAME.match(n) and verify_release(releases / n)]
        record = releases / CHAMPION_FILE
        champion = read_json(record, ChampionFile).release if record.exists() else None
        told = {"operation": operation, "killed": not alive, "names": names, "whole": whole}
        told["champion"] = champion
        print(json.dumps(told))
        operation += 1


if __name__ == "__main__":
    main()
