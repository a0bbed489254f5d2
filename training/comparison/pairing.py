"""Means over seeds with intervals over users and over seeds, and paired differences of methods.

Two things blur a mean over trainings: other users, and other training seeds. Users are drawn as in
training/evaluation/bootstrap.py, the same for every method, so that they pair; of seeds there are
too few to draw from (resampling three of them calls one difference in five that is none), so their
variance is estimated and the interval is Student's, with the degrees of freedom of Welch and
Satterthwaite. With one seed nothing is known of others, and the interval is over users alone.

Axes: S seeds, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from contracts.reading import ContractError
from training.comparison.store import Row, Store
from training.evaluation.bootstrap import Interval, bootstrap_auc, bootstrap_means

Float64 = npt.NDArray[np.float64]

RESAMPLES = 1000
LEVEL = 0.95


@dataclass(frozen=True)
class Drawn:
    """A method's metric: each seed's estimate [S], and draws [R] over users of their mean."""

    seeds: Float64
    draws: Float64

    @property
    def estimate(self) -> float:
        return float(self.seeds.mean())

    def interval(self) -> Interval:
        return _student(self.estimate, self.draws, _between([self.seeds]))[0]

    def minus(self, other: Drawn, alike: bool = False) -> tuple[Interval, float]:
        """The difference, paired by users, and its two-sided p.

        Args:
            alike: both are variants of one method. If one of them was trained once, its seeds are
                taken to vary as the other's do.
        """
        difference = self.estimate - other.estimate
        parts = _between([self.seeds, other.seeds], alike)
        return _student(difference, self.draws - other.draws, parts)


def _between(methods: Sequence[Float64], alike: bool = False) -> list[tuple[float, int]]:
    """What seeds add to the variance of means or their difference: (variance, its freedom)."""
    known = [one for one in methods if len(one) > 1]
    if alike and len(known) == 1:
        share = sum(1 / len(one) for one in methods)
        return [(float(known[0].var(ddof=1)) * share, len(known[0]) - 1)]
    return [(float(one.var(ddof=1)) / len(one), len(one) - 1) for one in known]


def _student(
    estimate: float, draws: Float64, between: Sequence[tuple[float, int]]
) -> tuple[Interval, float]:
    """Interval and p of an estimate, from its draws over users and what seeds add."""
    variance = float(np.nanvar(draws, ddof=1)) + sum(part for part, _ in between)
    if variance == 0:
        return Interval(estimate=estimate, low=estimate, high=estimate), float(estimate == 0)
    # What users add counts as known: of the fewest, KuaiRand-10's 242, it widens by half a percent.
    uncertain = sum(part**2 / freedom for part, freedom in between)
    freedom = variance**2 / uncertain if uncertain > 0 else np.inf
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * variance**0.5
    p = 2 * float(stats.t.sf(abs(estimate) / variance**0.5, freedom))
    return Interval(estimate=estimate, low=estimate - half, high=estimate + half), p


def draw(store: Store, rows: Sequence[Row], metric: str, resamples: int = RESAMPLES) -> Drawn:
    """The metric of one method from its rows, one for each seed.

    Raises:
        ValueError: no row, or rows of more than one case or method.
        ContractError: no such metric in the stored lists.
    """
    if len({(row.case, row.method, row.data) for row in rows}) != 1:
        raise ValueError("rows must be of one case and one method")
    found = [_one_seed(store, row, metric, resamples) for row in rows]
    estimates = np.array([estimate for estimate, _ in found])
    return Drawn(estimates, np.stack([draws for _, draws in found]).mean(axis=0))


def _one_seed(store: Store, row: Row, metric: str, resamples: int) -> tuple[float, Float64]:
    lists, case = store.lists(row), store.case_lists(row)
    if metric == "auc":
        score = -lists["place"].astype(np.float64)
        return bootstrap_auc(score, case["label"], case["shown"], case["users"], resamples)
    if metric not in lists:
        raise ContractError(
            f"{store.folder}: the stored lists of {row.case} {row.method}, seed {row.seed}, are "
            f"without {metric!r}; remove its line, and training/compare.py makes it again"
        )
    values = lists[metric].astype(np.float64)[:, None]
    weights = case["shown"].sum(axis=1).astype(np.float64)[:, None] if metric == "gauc" else None
    means, draws = bootstrap_means(values, case["users"], weights, resamples)
    return float(means[0]), draws[:, 0]
