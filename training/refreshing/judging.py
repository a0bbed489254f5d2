"""Champion and candidate on the newest held-out slates, which neither training nor choice has seen.

Axes: S slates, B batch, N list positions, M candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from contracts.reading import Strict
from training.data.arrays import SlateArrays
from training.decoding.run import Mode, decode_slates
from training.evaluation.against_baseline import Comparison, compare
from training.evaluation.metrics import evaluate_orders
from training.model.gen_reranker import GenReranker
from training.pairs.evaluator import Evaluator
from training.pairs.examination import Examination

CHAMPION, CANDIDATE, VALUE = "champion", "candidate", "value"
#: NDCG of shown items with feedback weighted by the inverse of the examination of its position.
NDCG_IPS = "ndcg_shown_ips"
Orders = npt.NDArray[np.int64]

#: Whose off-policy value is the difference of the two.
DIFFERENCE = f"{CANDIDATE} - {CHAMPION}"


@dataclass(frozen=True)
class Policies:
    """The two models, on one device."""

    champion: GenReranker
    candidate: GenReranker

    def items(self) -> tuple[tuple[str, GenReranker], tuple[str, GenReranker]]:
        return (CHAMPION, self.champion), (CANDIDATE, self.candidate)


class Judged(Strict, kw_only=True, frozen=True):
    """What held-out slates say of the candidate beside the champion.

    Attributes:
        comparison: metrics with paired intervals; ``value`` is the judge's expected utility.
        changed: share of requests whose list differs.
        duplicates: share of the candidate's lists that hold an item twice.
        eta: examination of position k is taken as k^-eta in ``ndcg_shown_ips``; ``eta_why`` where
            the log could not tell, and 0 stands for it.
        judge_gain: by which share the judge predicts held-out feedback better than the position
            alone; None without a judge.
    """

    comparison: Comparison
    changed: float
    duplicates: float
    eta: float
    eta_why: str
    judge_gain: float | None


def judge_policies(
    policies: Policies,
    slates: SlateArrays,
    evaluator: Evaluator | None,
    judge_gain: float | None,
    examination: Examination,
    mode: Mode,
    resamples: int,
    level: float,
) -> Judged:
    """Decode both from all candidates and compare.

    Args:
        evaluator: the judge; None compares by the log alone.
        examination: how often a position is looked at, estimated from other slates.
    """
    n = min(slates.spec.list_size, int(slates.count.max()))
    device = next(policies.champion.parameters()).device
    orders = {
        name: decode_slates(model, slates, n, device, mode) for name, model in policies.items()
    }
    broken = np.array([_has_twice(row) for row in orders[CANDIDATE]])
    orders[CANDIDATE] = np.where(broken[:, None], -1, orders[CANDIDATE])
    eta = examination.usable_eta() if examination.usable else 0.0
    extra = {NDCG_IPS: {name: ndcg_ips(order, slates, eta) for name, order in orders.items()}}
    if evaluator is not None:
        extra[VALUE] = {
            name: list_values(evaluator, slates, order, device) for name, order in orders.items()
        }
    return Judged(
        comparison=compare(
            orders,
            slates.exposed,
            slates.utility,
            slates.user,
            baseline=CHAMPION,
            ks=(n,),
            extra=extra,
            resamples=resamples,
            level=level,
        ),
        changed=float((orders[CHAMPION] != orders[CANDIDATE]).any(axis=1).mean()),
        duplicates=float(broken.mean()),
        eta=eta,
        eta_why=examination.why,
        judge_gain=judge_gain,
    )


def ndcg_ips(orders: Orders, slates: SlateArrays, eta: float) -> npt.NDArray[np.float64]:
    """NDCG of the shown items by their positions in ``orders`` [S], feedback U * k^eta.

    What stands higher is seen more, so plain NDCG favours the order that was shown; the inverse
    propensity makes each feedback count for those that were not seen (arXiv 1608.04468).
    """
    place = np.arange(1.0, slates.exposed.shape[1] + 1)
    relevance = slates.utility * place**eta
    return evaluate_orders(orders, slates.exposed, relevance, (), "linear")["ndcg_shown"]


def list_values(
    evaluator: Evaluator,
    slates: SlateArrays,
    orders: Orders,
    device: torch.device,
) -> npt.NDArray[np.float64]:
    """The evaluator's value of one list a slate [S]."""
    values = []
    for batch in slates.batches(512, device):
        lists = torch.from_numpy(orders[batch.row.cpu().numpy()]).to(device)
        values.append(evaluator.value(batch, lists.unsqueeze(1))[:, 0].cpu().numpy())
    return np.concatenate(values).astype(np.float64)


def _has_twice(order: npt.NDArray[np.int64]) -> bool:
    real = order[order >= 0]
    return len(set(real.tolist())) < len(real)
