"""SNIPS and doubly robust estimators for slates, with intervals by user.

The value of a policy is E[sum over k of r_k], r_k the reward at position k. With weights w_k
(weights.py decides under which assumption), a prediction q_k of the reward, and v_k the share of
slates with a position k:

    SNIPS  V = sum_k v_k * sum_s w_sk r_sk / sum_s w_sk
    DR     V = sum_k v_k * [ sum_s u_sk e_sk / sum_s u_sk + sum_s w_sk (r_sk - q_sk) / sum_s w_sk ]

(Swaminathan and Joachims, NeurIPS 2015, for the normalisation; Dudik et al., ICML 2011, for DR).
e_sk is what the target policy may expect of q_k, and u_sk the weight of whatever the expectation
is conditional on: all 1 where it is on the request alone; w_{k-1} where it is on the logged prefix,
as in Cascade-DR (Kiyohara et al., WSDM 2022, arXiv 2202.01562, Section 3.1). If the weights are
right, q may be anything; the better q, the narrower the interval.

Axes: S slates, U users, N list positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse, stats

from training.evaluation.alignment import Float64
from training.evaluation.bootstrap import Interval
from training.evaluation.off_policy.logged import Logged


@dataclass(frozen=True)
class Terms:
    """What an estimate is made of, all [S, N] and 0 at padding.

    Attributes:
        shown: 1 at real positions.
        weight, residual: w, and r or r - q.
        prior, expected: u and e; None for SNIPS.
    """

    shown: Float64
    weight: Float64
    residual: Float64
    prior: Float64 | None = None
    expected: Float64 | None = None


@dataclass(frozen=True)
class Prediction:
    """A prediction of rewards, [S, N].

    Attributes:
        logged: q of the logged choice. It must not have been fitted on this slate's reward.
        expected: its expectation under the target policy.
        given_prefix: whether the expectation is over the next item alone, given the logged items
            before it; else over whole lists, given the request.
    """

    logged: Float64
    expected: Float64
    given_prefix: bool


def snips(logged: Logged, weights: Float64) -> Terms:
    """Terms of the self-normalised estimator."""
    shown = logged.shown.astype(np.float64)
    return Terms(shown, weights * shown, np.where(logged.shown, logged.reward, 0.0))


def doubly_robust(
    logged: Logged, weights: Float64, prior: Float64, prediction: Prediction
) -> Terms:
    """Terms of the doubly robust estimator.

    Args:
        prior: the weight of the prefix (weights.before); read where ``given_prefix``.
    """
    shown = logged.shown.astype(np.float64)
    residual = np.where(logged.shown, logged.reward - prediction.logged, 0.0)
    expected = np.where(logged.shown, prediction.expected, 0.0)
    if not (np.isfinite(residual).all() and np.isfinite(expected).all()):
        raise ValueError("the predictions of rewards must be finite")
    prior = prior * shown if prediction.given_prefix else shown
    return Terms(shown, weights * shown, residual, prior, expected)


def value_of(terms: Terms, self_normalised: bool = True) -> float:
    """The point estimate."""
    sums = {name: part.sum(axis=0) for name, part in _products(terms).items()}
    return float(_value(sums, np.float64(len(terms.shown)), self_normalised))


def interval_of(
    terms: Terms,
    logged: Logged,
    minus: Terms | None = None,
    level: float = 0.95,
    self_normalised: bool = True,
) -> Interval | None:
    """The estimate, or its difference to another on the same slates, with an interval.

    Standard errors are those of the jackknife that leaves out one user at a time with all their
    slates (Efron and Stein, Annals of Statistics 1981: if anything too wide), quantiles those of
    Student's t with one degree of freedom less than users. None where fewer than two users hold
    all the weight of some position.
    """
    users, index = np.unique(logged.user, return_inverse=True)
    if len(users) < 2:
        return None
    cells = (np.ones(len(index)), (index.reshape(-1), np.arange(len(index))))
    by_user = sparse.csr_array(cells, shape=(len(users), len(index)))
    slates = by_user.sum(axis=1)
    value = value_of(terms, self_normalised)
    without = _leave_one_out(terms, by_user, slates, self_normalised)
    if minus is not None:
        value -= value_of(minus, self_normalised)
        without = without - _leave_one_out(minus, by_user, slates, self_normalised)
    spread = ((without - without.mean()) ** 2).sum() * (len(users) - 1) / len(users)
    half = stats.t.ppf((1 + level) / 2, len(users) - 1) * np.sqrt(spread)
    if not (np.isfinite(value) and np.isfinite(half)):
        return None
    return Interval(estimate=value, low=float(value - half), high=float(value + half))


def _leave_one_out(
    terms: Terms, by_user: sparse.csr_array, slates: Float64, self_normalised: bool
) -> Float64:
    """The estimate without each user [U]."""
    left = {}
    for name, part in _products(terms).items():
        mine = by_user @ part
        total = mine.sum(axis=0)
        left[name] = total - mine
        if name in ("weight", "prior"):
            # Where one user holds all the weight, rounding must not leave a grain to divide by.
            left[name][left[name] <= 1e-9 * total] = 0.0
    return _value(left, slates.sum() - slates, self_normalised)


def _products(terms: Terms) -> dict[str, Float64]:
    """The arrays [S, N] whose sums over slates an estimate is a function of."""
    out = {"shown": terms.shown, "weight": terms.weight, "rest": terms.weight * terms.residual}
    if terms.prior is not None and terms.expected is not None:
        out["prior"], out["known"] = terms.prior, terms.prior * terms.expected
    return out


def _value(sums: dict[str, Float64], slates: Float64, self_normalised: bool) -> Float64:
    """The estimate [...] from sums over slates [..., N]."""
    shown = sums["shown"]

    def mean(top: Float64, weight: Float64) -> Float64:
        down = weight if self_normalised else shown
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(down > 0, top / down, np.nan)
        return np.where(shown > 0, ratio, 0.0)

    value = mean(sums["rest"], sums["weight"])
    if "known" in sums:
        value = value + mean(sums["known"], sums["prior"])
    total: Float64 = (value * shown).sum(axis=-1) / slates
    return total
