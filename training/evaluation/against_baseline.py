"""Orders of several methods on the same lists, each against a baseline, with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.reading import Strict
from training.evaluation.alignment import Alignment, Float64, Floats, Ints, align
from training.evaluation.bootstrap import Interval, bootstrap_auc, bootstrap_means, interval
from training.evaluation.metrics import (
    Gain,
    evaluate_orders,
    impressions,
    position_score,
)


class Result(Strict, kw_only=True, frozen=True):
    """One metric of one method.

    Attributes:
        value: the metric with its own interval.
        difference: method minus baseline over the same lists; None for the baseline itself.
        lists: how many lists entered the mean (all of them for a pooled metric).
    """

    metric: str
    method: str
    value: Interval
    difference: Interval | None
    lists: int


class Comparison(Strict, kw_only=True, frozen=True):
    """All results, and what it takes to get them again."""

    baseline: str
    lists: int
    users: int
    resamples: int
    level: float
    seed: int
    results: tuple[Result, ...]

    def get(self, metric: str, method: str) -> Result:
        """The result of a metric and method; KeyError where it was not defined."""
        for result in self.results:
            if (result.metric, result.method) == (metric, method):
                return result
        raise KeyError(f"no {metric} of {method}")


def compare(
    orders: Mapping[str, Ints],
    exposed: Ints,
    feedback: Floats,
    users: npt.NDArray[Any],
    *,
    baseline: str,
    ks: Sequence[int] = (5, 10),
    gain: Gain = "exponential",
    scores: Mapping[str, Floats] | None = None,
    extra: Mapping[str, Mapping[str, Floats]] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Evaluate methods on the same lists.

    Args:
        orders: method -> int [B, N]; N may differ between methods. See ``align``.
        exposed, feedback: [B, L], the shown lists.
        users: [B], whom each list was shown to; they are what is resampled.
        baseline: the method that the others are compared with.
        ks: cutoffs.
        scores: method -> float [B, L], scores of the shown items that know the list's level
            too, for the metric ``auc_score``.
        extra: metric -> method -> float [B], further values of each list, such as a simulator's
            true expected feedback; NaN leaves a list out.
        resamples, level, seed: of the bootstrap.

    Returns:
        Metrics of ``evaluate_orders``, then ``auc`` (pooled, by position), ``auc_score`` and the
        extra ones. A metric that is not defined on these lists (an AUC with one class) is absent.

    Raises:
        ValueError: no such baseline, shapes that do not fit, or fewer than two users.
    """
    if baseline not in orders:
        raise ValueError(f"baseline is {baseline!r}; allowed: {', '.join(orders)}")
    draw = _Draw(users, resamples, seed)
    aligned = {method: align(order, exposed, feedback) for method, order in orders.items()}
    per_list = {
        method: evaluate_orders(order, exposed, feedback, ks, gain)
        for method, order in orders.items()
    }
    metrics = {
        metric: {method: values[metric] for method, values in per_list.items()}
        for metric in per_list[baseline]
    }
    shown = aligned[baseline]
    positions = {method: position_score(each) for method, each in aligned.items()}
    estimates = {
        **draw.means(metrics, {"gauc": impressions(shown)}),
        **draw.pooled_auc("auc", positions, shown),
        **draw.pooled_auc("auc_score", scores or {}, shown),
        **draw.means(extra or {}, {}),
    }
    return Comparison(
        baseline=baseline,
        lists=len(exposed),
        users=len(np.unique(users)),
        resamples=resamples,
        level=level,
        seed=seed,
        results=tuple(_results(estimates, baseline, level)),
    )


#: (metric, method) -> estimate, bootstrap draws [R], lists in the mean.
_Estimates = dict[tuple[str, str], tuple[float, Float64, int]]


@dataclass(frozen=True)
class _Draw:
    """The bootstrap that all metrics share: same users drawn, whatever is computed of them."""

    users: npt.NDArray[Any]
    resamples: int
    seed: int

    def means(
        self,
        metrics: Mapping[str, Mapping[str, Floats]],
        weights: Mapping[str, Floats],
    ) -> _Estimates:
        values = {
            (metric, method): np.asarray(each, np.float64)
            for metric, by_method in metrics.items()
            for method, each in by_method.items()
        }
        for (metric, method), each in values.items():
            if each.shape != self.users.shape:
                raise ValueError(
                    f"{metric} of {method} has shape {each.shape}; allowed: {self.users.shape}"
                )
        if not values:
            return {}
        equal = np.ones(self.users.shape)
        means, draws = bootstrap_means(
            np.stack(list(values.values()), axis=1),
            self.users,
            np.stack([weights.get(metric, equal) for metric, _ in values], axis=1),
            self.resamples,
            self.seed,
        )
        return {
            key: (float(mean), drawn, int((~np.isnan(each)).sum()))
            for (key, each), mean, drawn in zip(values.items(), means, draws.T)
        }

    def pooled_auc(self, metric: str, scores: Mapping[str, Floats], shown: Alignment) -> _Estimates:
        label = (shown.feedback > 0) & shown.exposed
        estimates: _Estimates = {}
        for method, score in scores.items():
            auc, draws = bootstrap_auc(
                score, label, shown.exposed, self.users, self.resamples, self.seed
            )
            estimates[metric, method] = (auc, draws, len(score))
        return estimates


def _results(estimates: _Estimates, baseline: str, level: float) -> Iterator[Result]:
    for (metric, method), (value, draws, lists) in estimates.items():
        if np.isnan(value):
            continue
        reference = estimates.get((metric, baseline))
        difference = None
        if method != baseline and reference is not None:
            difference = interval(value - reference[0], draws - reference[1], level)
        yield Result(
            metric=metric,
            method=method,
            value=interval(value, draws, level),
            difference=difference,
            lists=lists,
        )
