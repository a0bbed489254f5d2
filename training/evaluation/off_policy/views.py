"""Policies as arrays over logged slates: what the estimators need to know of each.

Axes: S slates, B slates of a batch, L lists a slate, N list positions, M candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.data.arrays import SlateArrays
from training.data.batch import Batch
from training.evaluation.alignment import Float64
from training.evaluation.off_policy.estimate import OffPolicySettings
from training.evaluation.off_policy.policies import Policy, marginals, of_lists
from training.evaluation.off_policy.q_hat import Predictor


@dataclass
class PolicyView:
    """A policy at the logged slates, all [S, N] and 0 at padding.

    Attributes:
        log_prob: log pi(y_k | y_<k, x) of the logged choices; -inf for what it never does.
        expected_next: sum over a of pi(a | y_<k, x) q_k(x, y_<k, a), y the logged list.
        marginal: p(y_k at k | x), over the policy's own lists.
        expected_item: sum over a of p(a at k | x) q_k(x, a).
    """

    log_prob: Float64
    expected_next: Float64
    marginal: Float64
    expected_item: Float64


@dataclass
class Predicted:
    """q of the logged choices [S, N]: given the logged prefix, and given the position alone."""

    next_item: Float64
    item: Float64


@dataclass
class Views:
    """Policies by name, the marginals p_0(y_k at k | x) of the logging policy [S, N], and q.

    Where marginals were not asked for, they are 0.
    """

    policies: dict[str, PolicyView]
    logging_marginal: Float64
    predicted: Predicted | None


def view_policies(
    slates: SlateArrays,
    policies: Mapping[str, Policy],
    logging: Policy | None,
    predictor: Predictor | None,
    settings: OffPolicySettings,
    progress: Callable[[int], None] = lambda done: None,
) -> Views:
    """View policies at the logged slates.

    Marginals are means over ``settings.draws`` lists; none are made where that is 0 or there is
    no logging policy. To the lists of the logging policy the logged one is added, one more draw of
    that policy: so nothing is divided by 0, and the weights are unbiased with any number of draws.
    (Given the lists, and not which of them was logged, the item logged at k is distributed as their
    mean says.) What few draws cost is reach: an item that all of them hold before k has no weight
    at k. A policy that is the logging policy has its marginals, hence weights of exactly 1.

    Args:
        progress: told of every so many slates done.
    """
    shape = slates.exposed.shape
    views = {name: PolicyView(*(np.zeros(shape) for _ in range(4))) for name in policies}
    logging_marginal = np.zeros(shape)
    predicted = Predicted(np.zeros(shape), np.zeros(shape))
    for batch in slates.batches(settings.batch_size):
        lists = batch.exposed
        at = batch.row.numpy(), slice(0, lists.size(1))
        q_next, q_item = _predict(predictor, batch)
        predicted.next_item[at] = _chosen(q_next, lists)
        predicted.item[at] = _chosen(q_item, lists)
        p_logging = None
        if settings.draws and logging is not None:
            p_logging = _marginals(logging, batch, settings, with_logged=True)
            logging_marginal[at] = _chosen(p_logging, lists)
        for name, policy in policies.items():
            view = views[name]
            log_p_BNM = policy.next_item(batch, lists.unsqueeze(1))[:, 0]
            view.log_prob[at] = of_lists(log_p_BNM, lists).double().numpy()
            view.expected_next[at] = _expected(log_p_BNM.exp(), q_next, lists)
            if p_logging is None:
                continue
            same = policy is logging
            p_BNM = p_logging if same else _marginals(policy, batch, settings, with_logged=False)
            view.marginal[at] = _chosen(p_BNM, lists)
            view.expected_item[at] = _expected(p_BNM, q_item, lists)
        progress(batch.size)
    return Views(views, logging_marginal, None if predictor is None else predicted)


def _predict(predictor: Predictor | None, batch: Batch) -> tuple[Tensor, Tensor]:
    """q [B, N, M] after the logged prefix, and at each position of the given order.

    The item-position model knows no prefix; what stands before must not depend on the log.
    """
    lists = batch.exposed
    if predictor is None:
        nothing = torch.zeros(*lists.shape, batch.candidates)
        return nothing, nothing
    given = batch.given(lists.size(1))
    return predictor.next_items(batch, lists), predictor.next_items(batch, given)


def _marginals(
    policy: Policy, batch: Batch, settings: OffPolicySettings, with_logged: bool
) -> Tensor:
    """p(a at k | x) [B, N, M]."""
    lists = policy.draw(batch, batch.exposed.size(1), settings.draws, settings.seed)
    if with_logged:
        lists = torch.cat([batch.exposed.unsqueeze(1), lists], dim=1)
    return marginals(policy.next_item(batch, lists), lists)


def _chosen(values_BNM: Tensor, lists_BN: Tensor) -> Float64:
    """Values of what the lists hold [B, N], 0 at -1."""
    found = values_BNM.gather(-1, lists_BN.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return np.asarray(found.masked_fill(lists_BN < 0, 0.0).double().numpy())


def _expected(p_BNM: Tensor, q_BNM: Tensor, lists_BN: Tensor) -> Float64:
    """Sum over candidates of p * q [B, N], 0 at -1."""
    total = (p_BNM * q_BNM.masked_fill(p_BNM == 0, 0.0)).sum(-1)
    return np.asarray(total.masked_fill(lists_BN < 0, 0.0).double().numpy())
