"""Whether an evaluator's differences are as large as they turn out to be, on held-out lists.

The slope of a logistic calibration (Platt, 1999; Cox, 1958): below 1 an evaluator is too sure, and
so are the values of lists that it adds up. It is measured and not corrected: the lists at hand are
those of the gate, which noise then passes twice as often, and the mean of three evaluators needs no
correction (docs/evaluation/decisions.md).

Axes: E shown items.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import optimize

Float64 = npt.NDArray[np.float64]


def calibration_slope(said_E: Float64, label_E: Float64, binary: bool) -> float:
    """By how much the logits (binary) or values should be multiplied to predict the labels best.

    With the weight of one label slope and shift are held to 1 and 0, so that labels that are all
    alike, or expectations that are, have an answer.
    """
    x = np.stack([said_E, np.ones_like(said_E)], axis=1)
    prior = np.array([1.0, 0.0])
    if not binary:
        return float(np.linalg.solve(x.T @ x + np.eye(2), x.T @ label_E + prior)[0])

    def loss(theta: Float64) -> tuple[float, Float64]:
        logit = x @ theta
        value = np.logaddexp(0, logit).sum() - label_E @ logit + ((theta - prior) ** 2).sum() / 2
        p = np.exp(-np.logaddexp(0, -logit))
        return float(value), x.T @ (p - label_E) + theta - prior

    return float(optimize.minimize(loss, prior, jac=True, method="L-BFGS-B").x[0])
