"""Pseudo-lists: consecutive exposures of one user, cut into lists of one length.

A log without request ids holds no lists; this is how the field makes some of it, and every table
made from them must say so.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from training.sources.base import Tally

Ints = npt.NDArray[np.int64]


def cut_lists(user: Ints, item: Ints, segment: Ints, size: int, tally: Tally) -> Ints:
    """Cut exposures, sorted by user and time, into lists that cross no segment.

    An item that is shown again while its list is being filled is left out, for a request holds an
    item once. Every exposure is in one list, or counted as dropped.

    Args:
        user, item: [N]. segment: [N], the part of time; below 0 is in no list (not counted).

    Returns:
        Indices into the exposures [L, size].
    """
    lists: list[list[int]] = []
    current: list[int] = []
    seen: set[int] = set()
    repeats = leftover = 0
    group = (-1, -1)
    rows = np.flatnonzero(segment >= 0)
    triples = zip(rows.tolist(), user[rows].tolist(), segment[rows].tolist(), item[rows].tolist())
    for row, who, part, what in triples:
        if (who, part) != group:
            leftover += len(current)
            group, current, seen = (who, part), [], set()
        if what in seen:
            repeats += 1
            continue
        current.append(row)
        seen.add(what)
        if len(current) == size:
            lists.append(current)
            current, seen = [], set()
    leftover += len(current)
    tally.drop("exposure of an item that its list holds already", repeats)
    tally.drop(f"exposure at the end of a run, not enough for a list of {size}", leftover)
    return np.array(lists, np.int64).reshape(-1, size)
