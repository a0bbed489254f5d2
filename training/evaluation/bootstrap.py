"""Paired bootstrap by user: how far a difference of two metrics may be chance.

The lists of one user are not independent, so users are drawn, with all their lists (the cluster
bootstrap; Efron and Tibshirani, An Introduction to the Bootstrap, ch. 8). The same draws serve
every method and metric, which is what makes differences paired. Intervals are percentiles.

Axes: B lists, U users, S series (a metric of a method), R resamples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from contracts.reading import Strict
from training.evaluation.alignment import Bools, Float64, Floats

#: Numbers held at once by one piece of the work.
_PIECE = 4_000_000


class Interval(Strict, kw_only=True, frozen=True):
    """An estimate and its interval."""

    estimate: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def interval(estimate: float, draws: Float64, level: float = 0.95) -> Interval:
    """Percentile interval of an estimate from its bootstrap draws [R]; NaN draws are left out."""
    tail = (1 - level) / 2
    low, high = np.nanquantile(draws, (tail, 1 - tail))
    return Interval(estimate=float(estimate), low=float(low), high=float(high))


def user_draws(users: int, resamples: int, seed: int) -> Iterator[Float64]:
    """How often each user is drawn: float64 [r, U] pieces, R rows in all, the same for a seed."""
    rng = np.random.default_rng(seed)
    rows = max(1, _PIECE // users)
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        drawn = rng.integers(users, size=(size, users)) + users * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * users)
        yield counts.reshape(size, users).astype(np.float64)


def bootstrap_means(
    values: Floats,
    users: npt.NDArray[Any],
    weights: Floats | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[Float64, Float64]:
    """Weighted means of series and their bootstrap draws.

    Args:
        values: [B, S]; a NaN leaves the list out of that series' mean.
        users: [B], whom each list was shown to, as any sortable labels.
        weights: [B, S] or None for equal weights.

    Returns:
        Means [S] and draws [R, S]. A series without values is NaN.

    Raises:
        ValueError: fewer than two users, or shapes that do not fit.
    """
    known = ~np.isnan(values)
    weight = known * (1.0 if weights is None else weights)
    by_user = _user_matrix(users, len(values))
    total = by_user @ (np.where(known, values, 0.0) * weight)
    mass = by_user @ weight
    with np.errstate(invalid="ignore"):
        means = total.sum(axis=0) / mass.sum(axis=0)
        draws = [
            (count @ total) / (count @ mass) for count in user_draws(len(mass), resamples, seed)
        ]
    return means, np.concatenate(draws)


def pooled_auc(score: Floats, label: Bools, valid: Bools) -> float:
    """One ROC AUC over all valid items of all lists; ties count one half; NaN for one class.

    Args:
        score, label, valid: [B, L].
    """
    level, levels = _levels(score[valid])
    positive = np.bincount(level[label[valid]], minlength=levels).astype(np.float64)
    negative = np.bincount(level[~label[valid]], minlength=levels).astype(np.float64)
    return float(_auc(positive[None], negative[None])[0])


def bootstrap_auc(
    score: Floats,
    label: Bools,
    valid: Bools,
    users: npt.NDArray[Any],
    resamples: int = 200,
    seed: int = 0,
) -> tuple[float, Float64]:
    """Pooled AUC and its draws [R], each computed anew over the lists of the drawn users.

    A pooled AUC is no mean over lists. It depends on how many positive and negative items each
    score level has, and those counts add up over users, so a resample is one sparse product.
    The draws of users are those of ``bootstrap_means`` for the same users and seed.
    """
    by_user = _user_matrix(users, len(score))
    level, levels = _levels(score[valid])
    lists = np.broadcast_to(np.arange(len(score))[:, None], score.shape)[valid]

    def counts(flag: Bools) -> sparse.csr_array:
        cells = (flag.astype(np.float64), (lists, level))
        return by_user @ sparse.csr_array(cells, shape=(len(score), levels))

    positive, negative = counts(label[valid]), counts(~label[valid])
    draws = []
    for count in user_draws(by_user.shape[0], resamples, seed):
        rows = max(1, _PIECE // levels)
        for start in range(0, len(count), rows):
            piece = count[start : start + rows]
            draws.append(_auc(piece @ positive, piece @ negative))
    return pooled_auc(score, label, valid), np.concatenate(draws)


def _auc(positive: Float64, negative: Float64) -> Float64:
    """AUC [R] from counts of positives and negatives [R, levels], levels ascending in score."""
    below = np.cumsum(negative, axis=1) - negative
    wins = (positive * (below + negative / 2)).sum(axis=1)
    with np.errstate(invalid="ignore"):
        auc: Float64 = wins / (positive.sum(axis=1) * negative.sum(axis=1))
    return auc


def _levels(score: Floats) -> tuple[npt.NDArray[np.int64], int]:
    if np.isnan(score).any():
        raise ValueError("score of a valid item is NaN")
    distinct, level = np.unique(score, return_inverse=True)
    return level.reshape(-1), max(1, len(distinct))


def _user_matrix(users: npt.NDArray[Any], lists: int) -> sparse.csr_array:
    """Sparse [U, B] with a one where the list is the user's."""
    if users.shape != (lists,):
        raise ValueError(f"users has shape {users.shape}; allowed: one for each of {lists} lists")
    distinct, index = np.unique(users, return_inverse=True)
    if len(distinct) < 2:
        raise ValueError(f"a bootstrap by user needs two users or more; found {len(distinct)}")
    cells = (np.ones(lists), (index.reshape(-1), np.arange(lists)))
    return sparse.csr_array(cells, shape=(len(distinct), lists))
