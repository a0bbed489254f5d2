"""How often items like this one did well: rates of categories and of pairs with the user's.

What identities hold, a model learns slowly from a few labels each; counted, smoothed and handed
over as numbers it is known at once (metarank calls them rates, the Kaggle literature target
encoding). For the slates that are learned from they are out of fold, so that no list sees its own
feedback: else a model would trust them more than they deserve.

Axes: S slates, B batch, M candidates, N shown positions, K rates, F folds.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from contracts.features import FeatureSpec
from training.data.arrays import SlateArrays

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Ints = npt.NDArray[np.integer]  # type: ignore[type-arg]

FOLDS = 5
#: Impressions at the mean rate that each value begins with.
PRIOR = 10.0
#: A pair of columns with more values is left out: few of them would be seen twice.
MAX_VALUES = 1_000_000
#: What earlier counts weigh once newer slates are added: tastes move.
KEPT = 0.5


class Rates(nn.Module):
    """Smoothed mean utility by item column, and by (user column, item column).

    Its counts are buffers: they are saved with the model that reads them.

    Args:
        largest: a pair of columns with more values (user and item identities) is left out.

    Attributes:
        columns: K.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, spec: FeatureSpec, largest: int = MAX_VALUES) -> None:
        super().__init__()
        self._item = [feature.rows for feature in spec.item.categorical]
        self._user = [feature.rows for feature in spec.user.categorical]
        # -1 stands for "no user column".
        self.keys = [(-1, column, rows) for column, rows in enumerate(self._item)]
        self.keys += [
            (u, i, user_rows * item_rows)
            for u, user_rows in enumerate(self._user)
            for i, item_rows in enumerate(self._item)
            if user_rows * item_rows <= largest
        ]
        self.columns = len(self.keys)
        for number, (_, _, rows) in enumerate(self.keys):
            self.register_buffer(f"sums_{number}", torch.zeros(rows))
            self.register_buffer(f"counts_{number}", torch.zeros(rows))
        self.register_buffer("mean", torch.zeros(()))
        # What chance does to a rate of PRIOR impressions. Not the spread of the rates that are
        # learned from: of users with one list each, theirs are all the mean.
        self.register_buffer("scale", torch.ones(()))
        #: Sums and counts of each fold [F, rows] of the slates that were added last.
        self._folds: list[tuple[Tensor, Tensor]] = []

    @property
    def numbers(self) -> int:
        """Rates that are known."""
        return sum(int((self._table(number)[1] > 0).sum()) for number in range(self.columns))

    def add(self, train: SlateArrays) -> None:
        """Count the feedback of slates; what was counted before weighs ``KEPT`` from now on.

        In training mode the module then expects batches of these very slates.
        """
        shown = train.exposed >= 0
        fold = np.arange(len(train)) % FOLDS
        index = np.where(shown, train.exposed, 0)
        device = self.mean.device
        first = not any(bool(self._table(number)[1].any()) for number in range(self.columns))
        self._folds = []
        for number, key in enumerate(self.keys):
            at = self._index(
                key, torch.from_numpy(train.item_cat), torch.from_numpy(train.user_cat)
            )
            at_SN = np.take_along_axis(at.numpy(), index, 1)
            sums, counts = _by_fold(at_SN, shown, train.utility, fold, key[2])
            kept_sums, kept_counts = self._table(number)
            kept_sums.mul_(KEPT).add_(torch.from_numpy(sums.sum(0)).to(device))
            kept_counts.mul_(KEPT).add_(torch.from_numpy(counts.sum(0)).to(device))
            self._folds.append(
                (torch.from_numpy(sums).to(device), torch.from_numpy(counts).to(device))
            )
        mean = float(train.utility[shown].mean()) if shown.any() else 0.0
        self.mean.fill_(mean if first else KEPT * float(self.mean) + (1 - KEPT) * mean)
        if first and shown.any():  # it stays: what reads rates has learned it
            self.scale.fill_(max(float(train.utility[shown].std()), 1e-3) / PRIOR**0.5)

    def forward(self, item_cat: Tensor, user_cat: Tensor, row: Tensor) -> Tensor:
        """Rates [B, M, K], over the mean and in units of ``scale``; in training mode out of fold.

        Args:
            item_cat: [B, M, C]. user_cat: [B, C].
            row: [B], the slates' rows among those that were added last.
        """
        apart = self.training and bool(self._folds)
        columns = []
        for number, key in enumerate(self.keys):
            at = self._index(key, item_cat, user_cat)
            sums, counts = self._table(number)
            total, count = sums[at], counts[at]
            if apart:
                own, (fold_sums, fold_counts) = (row % FOLDS).unsqueeze(1), self._folds[number]
                total, count = total - fold_sums[own, at], count - fold_counts[own, at]
            columns.append((total + PRIOR * self.mean) / (count + PRIOR))
        return (torch.stack(columns, dim=-1) - self.mean) / self.scale

    def _table(self, number: int) -> tuple[Tensor, Tensor]:
        return getattr(self, f"sums_{number}"), getattr(self, f"counts_{number}")

    def _index(self, key: tuple[int, int, int], item_cat: Tensor, user_cat: Tensor) -> Tensor:
        """Rows of a key's table [B, M]; categories beyond their table count as missing."""
        user, item, _ = key
        rows = self._item[item]
        at = _within(item_cat[..., item], rows)
        if user < 0:
            return at
        return at + rows * _within(user_cat[:, user], self._user[user]).unsqueeze(1)


def _within(cat: Tensor, rows: int) -> Tensor:
    return cat.long().masked_fill((cat < 0) | (cat >= rows), 0)


def _by_fold(
    at_SN: Int64, shown: npt.NDArray[np.bool_], utility: Float32, fold: Int64, rows: int
) -> tuple[Float32, Float32]:
    """Sum of the utility, and impressions, by fold [F, rows]."""
    sums = np.zeros((FOLDS, rows), np.float32)
    counts = np.zeros((FOLDS, rows), np.float32)
    for number in range(FOLDS):
        mine = shown & (fold == number)[:, None]
        sums[number] = np.bincount(at_SN[mine], utility[mine], rows)
        counts[number] = np.bincount(at_SN[mine], minlength=rows)
    return sums, counts
