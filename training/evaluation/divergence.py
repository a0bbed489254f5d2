"""How far one policy is from another.

Axes: B slates, N list positions, M candidates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.data.arrays import SlateArrays
from training.data.batch import Batch
from training.losses.likelihood import chosen_before
from training.model.gen_reranker import GenReranker
from training.model.layers import BLOCKED
from training.pairs.drawing import draw_lists


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


def _next_choice(model: GenReranker, batch: Batch, lists_BN: Tensor) -> Tensor:
    """log p(. | y_<k) [B, N, M]; choices already made have the same tiny value in every model."""
    model.eval()
    z, prior = model.encode(batch)
    logits = model.block_logits(z, prior, lists_BN).float()
    before = chosen_before(lists_BN, logits.size(-1))[:, :-1]
    return logits.masked_fill(before, BLOCKED).log_softmax(-1).clamp(min=-1e4)
