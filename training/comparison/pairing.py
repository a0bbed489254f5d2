"""Means over seeds with intervals over users and over seeds, and paired differences of methods.

Users are drawn as in training/evaluation/bootstrap.py, the same for every method; in each resample
the seeds of each method are drawn too, for trainings of two methods have nothing in common but
the data. With S seeds the spread between them is underestimated by (S - 1) / S.

Axes: S seeds, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from training.comparison.store import Row, Store
from training.evaluation.bootstrap import Interval, bootstrap_auc, bootstrap_means, interval

Float64 = npt.NDArray[np.float64]

RESAMPLES = 1000


@dataclass(frozen=True)
class Drawn:
    """A method's metric: mean over seeds, and its draws [R] over users and seeds."""

    estimate: float
    draws: Float64

    def interval(self) -> Interval:
        return interval(self.estimate, self.draws)

    def minus(self, other: Drawn) -> tuple[Interval, float]:
        """The paired difference, and its two-sided bootstrap p (never below 2 / (R + 1))."""
        draws = self.draws - other.draws
        both = min((draws <= 0).sum(), (draws >= 0).sum())
        p = min(1.0, 2 * (1 + float(both)) / (len(draws) + 1))
        return interval(self.estimate - other.estimate, draws), p


def draw(store: Store, rows: Sequence[Row], metric: str, resamples: int = RESAMPLES) -> Drawn:
    """The metric of one method from its rows, one for each seed.

    Raises:
        ValueError: no row, or rows of more than one case or method.
        KeyError: no such metric in these rows.
    """
    if len({(row.case, row.method, row.data) for row in rows}) != 1:
        raise ValueError("rows must be of one case and one method")
    found = [_one_seed(store, row, metric, resamples) for row in rows]
    estimates = np.array([estimate for estimate, _ in found])
    draws_SR = np.stack([draws for _, draws in found])
    rng = np.random.default_rng(xxhash.xxh32_intdigest(rows[0].method.encode()))
    seeds_SR = rng.integers(len(rows), size=draws_SR.shape)
    mixed = np.take_along_axis(draws_SR, seeds_SR, axis=0).mean(axis=0)
    return Drawn(float(estimates.mean()), mixed)


def _one_seed(store: Store, row: Row, metric: str, resamples: int) -> tuple[float, Float64]:
    lists, case = store.lists(row), store.case_lists(row)
    if metric == "auc":
        score = -lists["place"].astype(np.float64)
        return bootstrap_auc(score, case["label"], case["shown"], case["users"], resamples)
    values = lists[metric].astype(np.float64)[:, None]
    weights = case["shown"].sum(axis=1).astype(np.float64)[:, None] if metric == "gauc" else None
    means, draws = bootstrap_means(values, case["users"], weights, resamples)
    return float(means[0]), draws[:, 0]
