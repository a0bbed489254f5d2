"""How far post-training has gone beyond what the log knows, after every epoch.

Evaluators label lists that nobody was shown, and a policy that learns from them finds where they
are too kind. Each score is of held-out requests.

Axes: S slates, n list positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from contracts.datasets import Dataset
from training.data.arrays import SlateArrays
from training.evaluation.divergence import mean_divergence
from training.evaluation.metrics import given_order
from training.evaluation.off_policy.candidate import estimate_candidate
from training.evaluation.off_policy.estimate import OffPolicySettings
from training.evaluation.off_policy.logged import explored
from training.evaluation.truth import Orders, true_feedback, world_of, world_rows
from training.model.gen_reranker import GenReranker
from training.pairs.ensemble import Ensemble
from training.pairs.evaluator import Evaluator
from training.sources.world import KINDS

#: Requests whose divergence, and whose off-policy estimate, is taken after an epoch.
SOME = 512
#: The cascade needs no draws; the item-position assumption would, for every slate.
_CASCADE = OffPolicySettings(draws=0)


@dataclass(frozen=True)
class Optimism:
    """Scores of decoded lists, called with them [S, n] after every epoch.

    ``kl``: KL(policy || the one it began with), nats a list. ``labelled_gain``: what the labelling
    evaluators expect over the given order; ``optimism``: by how much that is above what the judge
    expects, which is another's view where the labellers leave its users out (``apart``). What they
    should be compared with: ``true_gain (simulated)``, the world's own expectation, where there is
    a world; else, where enough of the traffic was explored, ``off_policy_gain`` over the policy it
    began with (DR at the temperature that was logged).
    """

    policy: GenReranker
    begun: GenReranker
    slates: SlateArrays
    device: torch.device
    labeller: Ensemble
    judge: Evaluator
    true_gain: Callable[[Orders], float] | None

    def __call__(self, orders: Orders) -> dict[str, float]:
        given = given_order(self.slates.count, orders.shape[1])
        labelled = self._gain(self.labeller, orders, given)
        scores = {
            "kl": mean_divergence(self.policy, self.begun, self._some(), 0),
            "labelled_gain": labelled,
            "optimism": labelled - self._gain(self.judge, orders, given),
        }
        if self.true_gain is not None:
            return scores | {"true_gain (simulated)": self.true_gain(orders)}
        return scores | self._off_policy()

    def _some(self) -> SlateArrays:
        return self.slates.take(np.arange(min(SOME, len(self.slates))))

    def _gain(self, evaluator: Ensemble | Evaluator, orders: Orders, given: Orders) -> float:
        total = 0.0
        for batch in self.slates.batches(512, self.device):
            rows = batch.row.cpu().numpy()
            both = torch.from_numpy(np.stack([orders[rows], given[rows]], axis=1)).to(self.device)
            value = evaluator.value(batch, both)
            total += float((value[:, 0] - value[:, 1]).sum())
        return total / len(self.slates)

    def _off_policy(self) -> dict[str, float]:
        some = self._some()
        if not explored(some).usable:
            return {}
        begun, policy, judge = self.begun.cpu(), self.policy.cpu(), self.judge.cpu()
        try:
            found = estimate_candidate(begun, policy, some, q_hat=judge, settings=_CASCADE)
        finally:
            for model in (begun, policy, judge):
                model.to(self.device)
        for one in found:
            if " - " in one.policy and one.estimator == "dr" and one.usable:
                return {} if one.value is None else {"off_policy_gain": one.value}
        return {}


def true_gain(dataset: Dataset, slates: SlateArrays) -> Callable[[Orders], float] | None:
    """The world's own gain of lists over the given order; None where there is no world to ask."""
    if "world" not in dataset.settings or slates.spec.utility not in KINDS:
        return None
    world = world_of(dataset)
    users, items = world_rows(world, slates)
    kind = slates.spec.utility

    def value(orders: Orders) -> float:
        return float(true_feedback(world, kind, users, items, orders).mean())

    return lambda orders: value(orders) - value(given_order(slates.count, orders.shape[1]))
