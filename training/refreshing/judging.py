"""Champion and candidate on the newest held-out slates, which neither training nor choice has seen.

Axes: S slates, B batch, N list positions, M candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from contracts.reading import Strict
from training.data.arrays import SlateArrays
from training.decoding.run import Mode, decode_slates
from training.evaluation.comparison import Comparison, compare
from training.losses.likelihood import chosen_before
from training.model.gen_reranker import GenReranker
from training.model.layers import BLOCKED
from training.pairs.evaluator import Evaluator
from training.pairs.policy import draw_lists

CHAMPION, CANDIDATE, VALUE = "champion", "candidate", "value"
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
        judge_gain: by which share the judge predicts held-out feedback better than the position
            alone; None without a judge.
    """

    comparison: Comparison
    changed: float
    duplicates: float
    judge_gain: float | None


def judge_policies(
    policies: Policies,
    slates: SlateArrays,
    evaluator: Evaluator | None,
    judge_gain: float | None,
    mode: Mode,
    resamples: int,
    level: float,
) -> Judged:
    """Decode both from all candidates and compare.

    Args:
        evaluator: the judge; None compares by the log alone.
    """
    n = min(slates.spec.list_size, int(slates.count.max()))
    device = next(policies.champion.parameters()).device
    orders = {
        name: decode_slates(model, slates, n, device, mode) for name, model in policies.items()
    }
    broken = np.array([_has_twice(row) for row in orders[CANDIDATE]])
    orders[CANDIDATE] = np.where(broken[:, None], -1, orders[CANDIDATE])
    extra = None
    if evaluator is not None:
        extra = {
            VALUE: {
                name: list_values(evaluator, slates, order, device)
                for name, order in orders.items()
            }
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
        judge_gain=judge_gain,
    )


def list_values(
    evaluator: Evaluator,
    slates: SlateArrays,
    orders: npt.NDArray[np.int64],
    device: torch.device,
) -> npt.NDArray[np.float64]:
    """The evaluator's value of one list a slate [S]."""
    values = []
    for batch in slates.batches(512, device):
        lists = torch.from_numpy(orders[batch.row.cpu().numpy()]).to(device)
        values.append(evaluator.value(batch, lists.unsqueeze(1))[:, 0].cpu().numpy())
    return np.concatenate(values).astype(np.float64)


@torch.no_grad()
def mean_divergence(
    policy: GenReranker, reference: GenReranker, slates: SlateArrays, seed: int
) -> float:
    """Mean KL(policy || reference) over lists, in nats a list, at temperature 1.

    One list is drawn from the policy for each request; the divergence of each next choice, given
    the list so far, is exact, and their sum is an unbiased estimate that is never negative.
    """
    n = min(slates.spec.list_size, int(slates.count.max()))
    device = next(policy.parameters()).device
    total = 0.0
    for batch in slates.batches(256, device):
        lists = draw_lists(policy, batch, n, 1, 1.0, batch.row + seed)[:, 1]
        log_p, log_q = (_next_choice(model, batch, lists) for model in (policy, reference))
        each = (log_p.exp() * (log_p - log_q)).sum(-1).masked_fill(lists < 0, 0.0)
        total += float(each.sum())
    return max(0.0, total / len(slates))


def _next_choice(model: GenReranker, batch: object, lists_BN: Tensor) -> Tensor:
    """log p(. | y_<k) [B, N, M]; choices already made have the same tiny value in every model."""
    model.eval()
    z, prior = model.encode(batch)  # type: ignore[arg-type]
    logits = model.block_logits(z, prior, lists_BN).float()
    before = chosen_before(lists_BN, logits.size(-1))[:, :-1]
    return logits.masked_fill(before, BLOCKED).log_softmax(-1).clamp(min=-1e4)


def _has_twice(order: npt.NDArray[np.int64]) -> bool:
    real = order[order >= 0]
    return len(set(real.tolist())) < len(real)
