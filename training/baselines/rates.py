"""How often items like this one did well: rates of categories and of pairs with the user's.

What gradient-boosted trees cannot learn from identities, ranking teams give them as such features
(metarank calls them rates). For the training lists they are out of fold, so that no list sees its
own feedback.

Axes: S slates, M candidates, N shown positions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from training.data.arrays import SlateArrays

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Ints = npt.NDArray[np.integer]  # type: ignore[type-arg]

FOLDS = 5
#: Impressions at the mean rate that each value begins with.
PRIOR = 10.0
#: A pair of tables larger than this (user x item identities) is left out.
MAX_PAIRS = 5_000_000


class Rates:
    """Smoothed mean utility by item column, and by (user column, item column)."""

    def __init__(self, train: SlateArrays) -> None:
        item = [feature.rows for feature in train.spec.item.categorical]
        user = [feature.rows for feature in train.spec.user.categorical]
        # -1 stands for "no user column".
        self.keys = [(-1, column, rows) for column, rows in enumerate(item)]
        self.keys += [
            (u, i, user_rows * item_rows)
            for u, user_rows in enumerate(user)
            for i, item_rows in enumerate(item)
            if user_rows * item_rows <= MAX_PAIRS
        ]
        self._item_rows, self._user_rows = item, user
        self._fold = np.arange(len(train)) % FOLDS
        shown = train.exposed >= 0
        self._mean = float(train.utility[shown].mean()) if shown.any() else 0.0
        self._tables = []
        index = np.where(shown, train.exposed, 0)
        for key in self.keys:
            at = np.take_along_axis(self._index(key, train.item_cat, train.user_cat), index, 1)
            self._tables.append(self._sums(at, shown, train.utility, key[2]))

    @property
    def numbers(self) -> int:
        """Rates that are kept."""
        return sum(int((counts.sum(0) > 0).sum()) for _, counts in self._tables)

    def _sums(
        self, at_SN: Int64, shown: npt.NDArray[np.bool_], utility: Float32, rows: int
    ) -> tuple[Float32, Float32]:
        """Sum of the utility and impressions by fold [FOLDS, rows]."""
        sums = np.zeros((FOLDS, rows), np.float32)
        counts = np.zeros((FOLDS, rows), np.float32)
        for fold in range(FOLDS):
            mine = shown & (self._fold == fold)[:, None]
            sums[fold] = np.bincount(at_SN[mine], utility[mine], rows)
            counts[fold] = np.bincount(at_SN[mine], minlength=rows)
        return sums, counts

    def _index(self, key: tuple[int, int, int], item_cat: Ints, user_cat: Ints) -> Int64:
        user, item, _ = key
        rows = self._item_rows[item]
        at = _within(item_cat[:, :, item], rows)
        if user < 0:
            return at
        return at + rows * _within(user_cat[:, user], self._user_rows[user])[:, None]

    def features(self, item_cat: Ints, user_cat: Ints, training: bool = False) -> Float32:
        """Rates [S, M, keys]; with ``training`` of the very training slates, out of fold."""
        columns = []
        for key, (sums, counts) in zip(self.keys, self._tables):
            at = self._index(key, item_cat, user_cat)
            total, number = sums.sum(0)[at], counts.sum(0)[at]
            if training:
                own = self._fold[:, None]
                total, number = total - sums[own, at], number - counts[own, at]
            columns.append((total + PRIOR * self._mean) / (number + PRIOR))
        if not columns:
            return np.zeros((*item_cat.shape[:2], 0), np.float32)
        return np.stack(columns, axis=-1).astype(np.float32)


def _within(cat: Ints, rows: int) -> Int64:
    return np.where((cat >= 0) & (cat < rows), cat, 0).astype(np.int64)
