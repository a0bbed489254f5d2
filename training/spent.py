"""Processor seconds that something cost, kept beside it: whoever takes it counts them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def spending(file: Path) -> Iterator[None]:
    """Write the processor seconds of the block to ``file``, once it has ended well."""
    began = time.process_time()
    yield
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{time.process_time() - began:.1f}\n")


def spent(file: Path) -> float:
    """Those seconds; 0 where the file is lost or torn: what it stands beside is sound all the
    same."""
    try:
        return float(file.read_text())
    except (OSError, ValueError):
        return 0.0
