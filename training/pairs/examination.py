"""How often a list position is looked at, estimated from the log: examination(k) = k^-eta.

The position-based model: a shown item gets feedback with probability examination(k) * a(x), the
attractiveness a of what stands there being a logistic function of features x. Both are fitted by
maximum likelihood (the regression of Wang et al., WSDM 2018, in one step). What tells them apart
is that items with the same x stand at different positions: a log that explores, or an order that
is not the features' own. Where x decides the position, the log says nothing of eta, and the
estimate says so.

Axes: S slates, N list positions, F features, I shown items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

from contracts.reading import ContractError
from training.data.arrays import SlateArrays

Floats = npt.NDArray[np.float64]

#: An interval wider than this, or positions explained by the features this well, decide nothing.
MAX_HALF_WIDTH, MAX_EXPLAINED = 0.25, 0.98
#: How far back an item's like is looked for: what repeats earns less, and the top repeats nothing.
WINDOW = 4


@dataclass(frozen=True)
class Examination:
    """An estimate of eta with its 95 % interval.

    Attributes:
        usable: whether the log can tell; ``why`` if not.
        items: shown items that it was fitted on.
        explained: share of the variance of log k that the features explain.
    """

    eta: float
    low: float
    high: float
    items: int
    explained: float
    usable: bool
    why: str = ""

    def usable_eta(self) -> float:
        """eta, at least 0; raises ContractError where the log cannot tell."""
        if not self.usable:
            raise ContractError(
                f"examination cannot be estimated: {self.why}; give eta "
                "(examination: given, post_train.pairs.examination), or take policy pairs"
            )
        return max(0.0, self.eta)


def estimate_examination(slates: SlateArrays, ridge: float = 1.0) -> Examination:
    """Fit eta on the shown items of logged slates.

    Args:
        ridge: weight of the squared coefficients of the features, in items.
    """
    x_IF, log_k, liked, user = shown_items(slates)
    items = len(liked)
    if not liked.any() or liked.all() or np.unique(log_k).size < 2:
        why = "feedback on no item, or on all; or one position alone"
        return Examination(0.0, 0.0, 0.0, items, 0.0, False, why)
    explained = _explained(x_IF, log_k)
    start = np.zeros(x_IF.shape[1] + 1)
    start[1] = special.logit(np.clip(2 * liked.mean(), 0.01, 0.99))  # the constant's coefficient
    best = optimize.minimize(
        _loss_and_gradient, start, args=(x_IF, log_k, liked, ridge), jac=True, method="L-BFGS-B"
    )
    error = _standard_error(best.x, x_IF, log_k, liked, user, ridge)
    half = float(stats.norm.ppf(0.975)) * error
    eta = float(best.x[0])
    why = ""
    if explained > MAX_EXPLAINED:
        why = f"the features decide the position ({explained:.1%} of it): nothing was swapped"
    elif not half <= MAX_HALF_WIDTH:
        why = f"the interval is eta +- {half:.2f} (at most {MAX_HALF_WIDTH}); take more slates"
    half = half if np.isfinite(half) else 0.0
    return Examination(eta, eta - half, eta + half, items, explained, not why, why)


def shown_items(slates: SlateArrays) -> tuple[Floats, Floats, Floats, npt.NDArray[np.int64]]:
    """Features [I, F] (a constant first, then standardised), log k [I], feedback 0/1 [I], user [I].

    Features: dense ones of item and user, and for each categorical item feature the share of the
    ``WINDOW`` items before it that have the same value.
    """
    shown = slates.exposed >= 0
    rows, place = np.nonzero(shown)
    item = slates.exposed[rows, place]
    columns = (
        slates.item_dense[rows, item].astype(np.float64),
        slates.user_dense[rows].astype(np.float64),
        _repeats(slates)[rows, place],
    )
    x_IF = np.concatenate(columns, axis=1)
    spread = x_IF.std(axis=0)
    x_IF = (x_IF - x_IF.mean(axis=0))[:, spread > 1e-9] / spread[spread > 1e-9]
    # Bends: attractiveness need not be linear in its logit.
    x_IF = np.concatenate([np.ones((len(x_IF), 1)), x_IF, np.clip(x_IF, -3, 3) ** 2], axis=1)
    liked = (slates.utility[rows, place] > 0).astype(np.float64)
    _, user = np.unique(slates.user.astype(str), return_inverse=True)
    return x_IF, np.log(place + 1.0), liked, user[rows]


def _repeats(slates: SlateArrays) -> Floats:
    """Share of the items just before with the same value [S, N, C].

    Without features that have one value alone: how many came before is the position itself.
    """
    index = np.maximum(slates.exposed, 0)
    values = np.take_along_axis(slates.item_cat, index[:, :, None], axis=1)
    shown = values[slates.exposed >= 0]
    values = values[:, :, (shown != shown[0]).any(axis=0)]
    repeats = np.zeros(values.shape)
    for back in range(1, min(WINDOW, values.shape[1] - 1) + 1):
        repeats[:, back:] += (values[:, back:] == values[:, :-back]) / WINDOW
    return repeats


def _loss_and_gradient(
    parameters: Floats, x_IF: Floats, log_k: Floats, liked: Floats, ridge: float
) -> tuple[float, Floats]:
    """Negative log-likelihood with a ridge on all but eta and the constant, and its gradient."""
    each, gradient_IP = _per_item(parameters, x_IF, log_k, liked)
    shrunk = parameters.copy()
    shrunk[:2] = 0.0
    loss = float(each.sum() + ridge / 2 * (shrunk**2).sum())
    return loss, gradient_IP.sum(axis=0) + ridge * shrunk


def _per_item(
    parameters: Floats, x_IF: Floats, log_k: Floats, liked: Floats
) -> tuple[Floats, Floats]:
    """Loss [I] and gradient [I, 1 + F] of each item; p = k^-eta * sigmoid(w . x)."""
    logit = x_IF @ parameters[1:]
    log_p = np.minimum(-parameters[0] * log_k - np.logaddexp(0, -logit), -1e-6)
    p = np.exp(log_p)
    loss = -np.where(liked > 0, log_p, np.log1p(-p))
    by_log_p = -np.where(liked > 0, 1.0, -p / (1 - p))
    gradient = np.concatenate(
        [(-by_log_p * log_k)[:, None], (by_log_p * special.expit(-logit))[:, None] * x_IF], axis=1
    )
    return loss, gradient


def _standard_error(
    parameters: Floats,
    x_IF: Floats,
    log_k: Floats,
    liked: Floats,
    user: npt.NDArray[np.int64],
    ridge: float,
) -> float:
    """Of eta, by the sandwich with users as clusters (White 1982)."""
    _, gradient_IP = _per_item(parameters, x_IF, log_k, liked)
    by_user = np.zeros((int(user.max()) + 1, gradient_IP.shape[1]))
    np.add.at(by_user, user, gradient_IP)
    step = 1e-4
    hessian = np.empty((len(parameters), len(parameters)))
    for index in range(len(parameters)):
        moved = parameters.copy()
        moved[index] += step
        up = _loss_and_gradient(moved, x_IF, log_k, liked, ridge)[1]
        moved[index] -= 2 * step
        down = _loss_and_gradient(moved, x_IF, log_k, liked, ridge)[1]
        hessian[index] = (up - down) / (2 * step)
    try:
        bread = np.linalg.inv((hessian + hessian.T) / 2)
    except np.linalg.LinAlgError:
        return float("inf")
    variance = (bread @ (by_user.T @ by_user) @ bread)[0, 0]
    return float(np.sqrt(variance)) if variance >= 0 else float("inf")


def _explained(x_IF: Floats, log_k: Floats) -> float:
    """R squared of the regression of log k on the features."""
    fitted = x_IF @ np.linalg.lstsq(x_IF, log_k, rcond=None)[0]
    return float(1 - ((log_k - fitted) ** 2).sum() / ((log_k - log_k.mean()) ** 2).sum())
