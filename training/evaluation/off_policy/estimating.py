"""Any two policies on explored slates, under both assumptions.

Axes: S slates, N list positions.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from training.data.arrays import SlateArrays
from training.evaluation.alignment import Bools, Floats
from training.evaluation.off_policy.comparing import Weighing, compare_policies, unusable
from training.evaluation.off_policy.estimate import OffPolicyEstimate, OffPolicySettings
from training.evaluation.off_policy.estimators import Prediction
from training.evaluation.off_policy.logged import Logged
from training.evaluation.off_policy.policies import Policy, logged_log_probs
from training.evaluation.off_policy.q_hat import Predictor
from training.evaluation.off_policy.views import Views, view_policies
from training.evaluation.off_policy.weights import cascade_weights, item_position_weights

CHAMPION, CANDIDATE = "champion", "candidate"

#: Nats by which a recomputed log-probability of a choice may differ from the logged one: engines
#: of other precisions differ by less, other policies by more.
REPRODUCED = 0.02


def estimate_explored(
    slates: SlateArrays,
    champion: Policy,
    candidate: Policy,
    *,
    logging: Policy | None = None,
    predictor: Predictor | None = None,
    reward: Floats | None = None,
    settings: OffPolicySettings = OffPolicySettings(),
    explored_share: float = 1.0,
    note: str = "",
    progress: Callable[[int], None] = lambda done: None,
) -> list[OffPolicyEstimate]:
    """What two policies would earn a list, and the difference (candidate.estimate_candidate).

    Args:
        slates: explored ones alone, each with its log_prob.
        logging: the policy that may have made the slates. The item-position assumption needs it,
            and uses only slates whose log_prob it reproduces.
        predictor: of rewards, for DR; None leaves DR out.
        reward: [S, N]; the utility if left out.
        explored_share, note: said of every estimate.
    """
    logged = Logged(
        slates.log_prob,
        np.asarray(slates.utility if reward is None else reward, np.float64),
        slates.exposed >= 0,
        slates.user,
    )
    policies = {CHAMPION: champion, CANDIDATE: candidate}
    views = view_policies(slates, policies, logging, predictor, settings, progress)
    cascade = compare_policies(
        logged,
        "cascade",
        _cascade(CHAMPION, views, logged),
        _cascade(CANDIDATE, views, logged),
        settings,
        explored_share,
        note,
    )
    why, mine = _made_by(logging, slates, logged, settings)
    if why:
        names = CHAMPION, CANDIDATE
        return cascade + unusable(why, "item_position", names, predictor is not None, settings)
    rows = np.flatnonzero(mine)
    if len(rows) < len(mine):
        other = (
            f"{len(mine) - len(rows)} of {len(mine)} explored slates have another policy's log_prob"
        )
        note = f"{note}; {other}" if note else other
    return cascade + compare_policies(
        logged.take(rows),
        "item_position",
        _item_position(CHAMPION, views, logged, rows),
        _item_position(CANDIDATE, views, logged, rows),
        settings,
        explored_share * len(rows) / len(mine),
        note,
    )


def _made_by(
    logging: Policy | None, slates: SlateArrays, logged: Logged, settings: OffPolicySettings
) -> tuple[str, Bools]:
    """Which slates a policy has made [S], and why there are none."""
    none = np.zeros(len(logged), bool)
    if logging is None or not settings.draws:
        missing = "the logging policy is not given" if logging is None else "draws is 0"
        return f"{missing}: the chance of an item at a position is not known", none
    own = logged_log_probs(logging, slates, settings.batch_size)
    with np.errstate(invalid="ignore"):
        off = np.abs(np.where(logged.shown, own - logged.log_prob, 0.0))
    mine = np.asarray((off <= REPRODUCED).all(axis=1))
    if mine.any():
        return "", mine
    return (
        "the logged log_prob is not that of the policy taken for the logging one: the chance of "
        "an item at a position is not known",
        none,
    )


def _cascade(name: str, views: Views, logged: Logged) -> Weighing:
    view = views.policies[name]
    weights = cascade_weights(view.log_prob, logged.log_prob, logged.shown)
    if views.predicted is None:
        return Weighing(name, weights)
    q = Prediction(views.predicted.next_item, view.expected_next, given_prefix=True)
    return Weighing(name, weights, q)


def _item_position(
    name: str, views: Views, logged: Logged, rows: npt.NDArray[np.int64]
) -> Weighing:
    view = views.policies[name]
    weights = item_position_weights(
        view.marginal[rows], views.logging_marginal[rows], logged.shown[rows]
    )
    if views.predicted is None:
        return Weighing(name, weights)
    q = Prediction(views.predicted.item[rows], view.expected_item[rows], given_prefix=False)
    return Weighing(name, weights, q)
