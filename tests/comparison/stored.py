"""A small stored example: three methods, two seeds, made by hand from a few numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training.comparison.store import Arrays, Measured, Row, Store

USERS = np.repeat(np.arange(20), 2).astype(np.int32)
#: Each list has its own level, so that methods are alike on a list: that is what pairing uses.
LEVEL = (USERS % 5).astype(np.float64)

#: Added to a list's level, by method and seed.
WORTH = {"given": (0.0, 0.0), "prm": (0.1, 0.2), "gref": (0.3, 0.4)}


def row(method: str, seed: int, **changes: object) -> Row:
    """A final row of the tiny case."""
    worth = WORTH.get(method, (0.0,))[(seed - 1) % 2]
    plain: dict[str, object] = {
        "case": "tiny",
        "method": method,
        "seed": seed,
        "role": "final",
        "trial": 0,
        "trials": 2,
        "settings": {"rate": 0.001},
        "data": "d" * 16,
        "code": "c0de",
        "epoch": 3,
        "cpu_seconds": 10.0 * seed,
        "parameters": 1234,
        "latency_ms": 1.0,
        "latency_ratio": 0.5,
        "metrics": {"true click": Measured(value=2.0 + worth, low=1.0, high=3.0)},
    }
    return Row(**{**plain, **changes})  # type: ignore[arg-type]


def lists(worth: float) -> Arrays:
    """What the store keeps of a row's lists: 40 lists of 3, the order as shown."""
    return {
        "true click": (LEVEL + worth).astype(np.float32),
        "place": np.tile(np.arange(3, dtype=np.int16), (40, 1)),
    }


def case_lists() -> Arrays:
    """The test lists: the first item of every list has feedback."""
    label = np.zeros((40, 3), bool)
    label[:, 0] = True
    return {"users": USERS, "label": label, "shown": np.ones((40, 3), bool)}


def fill(folder: Path) -> Store:
    """All rows, and a control of GReF that lost."""
    store = Store(folder)
    for method, worths in WORTH.items():
        for seed, worth in enumerate(worths, start=1):
            store.add(row(method, seed), lists(worth), case_lists())
    store.add(row("gref", 1, control="shuffled"), lists(-0.5), case_lists())
    return store
