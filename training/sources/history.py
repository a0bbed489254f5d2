"""Counts and smoothed rates of the past, by user, item, and pairs of both.

Past means the earlier slice and nothing else. A row of the earlier slice itself must not see its
own label either: its user-side counts are those of the user's rows before it (``running``), and
its item-side counts those of other users (``out_of_fold``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Counts:
    """How often [N], and the sum of the label over those times [N]."""

    times: Floats
    total: Floats

    def rate(self, prior: Floats | float, weight: float) -> Floats:
        """(total + weight * prior) / (times + weight): with no history, the prior."""
        return np.asarray((self.total + weight * prior) / (self.times + weight))


class History:
    """Counts of a label by key over the rows of the past."""

    def __init__(self, keys: Ints, labels: Floats) -> None:
        self._keys, rows = np.unique(keys, return_inverse=True)
        self._times = np.bincount(rows, minlength=len(self._keys)).astype(np.float64)
        self._total = np.bincount(rows, labels, minlength=len(self._keys))

    def of(self, keys: Ints) -> Counts:
        """Counts of each key [N]; zero for a key without history."""
        if not len(self._keys):
            return Counts(np.zeros(len(keys)), np.zeros(len(keys)))
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        known = self._keys[at] == keys
        return Counts(self._times[at] * known, self._total[at] * known)


def running(keys: Ints, labels: Floats) -> Counts:
    """For each row, counts over the rows before it that have its key. Rows are in time order."""
    order = np.argsort(keys, kind="stable")
    ordered, values = keys[order], labels[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]][: len(ordered)])
    group = np.cumsum(np.isin(np.arange(len(ordered)), starts)) - 1
    before = np.cumsum(values) - values
    times, total = np.empty(len(keys)), np.empty(len(keys))
    times[order] = np.arange(len(keys)) - starts[group]
    total[order] = before - before[starts][group]
    return Counts(times, total)


def out_of_fold(keys: Ints, labels: Floats, folds: Ints) -> Counts:
    """For each row, counts over the rows of other folds that have its key."""
    times, total = np.zeros(len(keys)), np.zeros(len(keys))
    for fold in np.unique(folds):
        inside = folds == fold
        counts = History(keys[~inside], labels[~inside]).of(keys[inside])
        times[inside], total[inside] = counts.times, counts.total
    return Counts(times, total)
