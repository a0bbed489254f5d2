"""Lists of the oracle as padded arrays, and random ones of a fixed shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tests.evaluation.oracle import List

Array = npt.NDArray[Any]


def padded(lists: list[List], extra: int = 0) -> tuple[Array, Array, Array]:
    """order, exposed and feedback, padded to the longest list and ``extra`` more."""
    size = max(max(len(one.order), len(one.exposed)) for one in lists) + extra
    order = np.full((len(lists), size), -1)
    exposed = np.full((len(lists), size), -1)
    feedback = np.full((len(lists), size), np.nan)  # padding must not be looked at
    for row, one in enumerate(lists):
        order[row, : len(one.order)] = one.order
        exposed[row, : len(one.exposed)] = one.exposed
        feedback[row, : len(one.exposed)] = one.feedback
    return order, exposed, feedback


def shuffled(
    lists: int, candidates: int, shown: int, decoded: int, seed: int, rate: float = 0.3
) -> tuple[Array, Array, Array]:
    """Random decoded and shown lists of the same candidates, with binary feedback."""
    rng = np.random.default_rng(seed)
    order = np.argsort(rng.random((lists, candidates)), axis=1)[:, :decoded]
    exposed = np.argsort(rng.random((lists, candidates)), axis=1)[:, :shown]
    return order, exposed, (rng.random((lists, shown)) < rate).astype(np.float64)
