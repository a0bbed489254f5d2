"""Changes of a folder that are there after a power cut, or not there at all."""

from __future__ import annotations

import os
from pathlib import Path


def fsync(path: Path) -> None:
    """Make a file's content, or a folder's list of names, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """Make every file and folder from ``folder`` down durable."""
    for path, _, files in os.walk(folder, topdown=False):
        for file in files:
            fsync(Path(path) / file)
        fsync(Path(path))


def write_durably(path: Path, content: bytes) -> None:
    """Write a file aside, make it durable, rename it. One writer at a time: hold the lock.

    A crash leaves the old file, and perhaps ``.<name>.new``, which the next write replaces.
    """
    aside = path.with_name(f".{path.name}.new")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        error.filename = error.filename or str(path)  # a full disk does not say of which file
        raise
    fsync(path.parent)
