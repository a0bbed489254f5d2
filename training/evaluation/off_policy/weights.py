"""Importance weights of positions: how much likelier a target policy makes what was logged.

Axes: S slates, N list positions.
"""

from __future__ import annotations

import numpy as np

from training.evaluation.alignment import Bools, Float64

#: Largest log-weight: its square still is a finite number.
_LARGEST = 300.0


def cascade_weights(target: Float64, logged: Float64, shown: Bools) -> Float64:
    """Weights where a reward depends on the items up to its own position [S, N].

    w_k = prod over j <= k of pi(y_j | y_<j, x) / pi_0(y_j | y_<j, x), the weights of RIPS
    (McInerney et al., KDD 2020, arXiv 2007.12986).

    Args:
        target, logged: log-probabilities of the logged choices [S, N]; -inf in ``target`` for
            what the target policy never does.
        shown: real positions [S, N]; weights elsewhere are 0.
    """
    ratio = np.where(shown, target, 0.0) - np.where(shown, logged, 0.0)
    weights = np.exp(np.minimum(ratio.cumsum(axis=1), _LARGEST))
    return np.where(shown, weights, 0.0)


def item_position_weights(target: Float64, logged: Float64, shown: Bools) -> Float64:
    """Weights where a reward depends on the item and its position alone [S, N].

    w_k = p(y_k at k | x) / p_0(y_k at k | x), the item-position model of Li et al. (KDD 2018,
    arXiv 1804.10488; "IIPS").

    Args:
        target, logged: marginal probabilities [S, N] of the logged item at its position;
            ``logged`` must be above 0, for the item did stand there.

    Raises:
        ValueError: probabilities that are none.
    """
    inside = np.where(shown, target, 0.0), np.where(shown, logged, 1.0)
    for name, value in zip(("target", "logged"), inside):
        low = value < 0 if name == "target" else value <= 0
        wrong = ~np.isfinite(value) | low | (value > 1 + 1e-4)
        if wrong.any():
            row, place = (int(index) for index in np.argwhere(wrong)[0])
            raise ValueError(
                f"{name} marginal of slate {row}, position {place}, is {value[row, place]}; "
                "allowed: a probability" + ("" if name == "target" else " above 0")
            )
    return np.where(shown, inside[0] / inside[1], 0.0)


def before(weights: Float64) -> Float64:
    """w_{k-1} at position k, 1 at the first [S, N]: the weight of the prefix of a choice."""
    return np.concatenate([np.ones_like(weights[:, :1]), weights[:, :-1]], axis=1)


def clip_weights(weights: Float64, shown: Bools, clip: float | None) -> tuple[Float64, float]:
    """Weights cut at ``clip``, and the share of shown positions that were cut.

    Cutting bounds the variance and biases towards what was logged (Ionides 2008).
    """
    if clip is None or not shown.any():
        return weights, 0.0
    share = float((weights > clip)[shown].mean())
    return np.minimum(weights, clip), share


def effective_sample_size(weights: Float64, shown: Bools) -> Float64:
    """(sum w)^2 / sum w^2 of each position [N] (Kish 1965): the worth in unweighted slates.

    Positions that no slate has are NaN; those whose weights are all 0 have 0.
    """
    weights = np.where(shown, weights, 0.0)
    square = (weights**2).sum(axis=0)
    size = np.divide(
        weights.sum(axis=0) ** 2, square, out=np.zeros(weights.shape[1]), where=square > 0
    )
    return np.where(shown.any(axis=0), size, np.nan)
