"""Distillation of evaluators into the policy, position by position.

A pair says which of two lists is better; the evaluators know what each candidate would earn at
each position of a list. Sequence-level distillation (Kim & Rush, arXiv 1606.07947) with the
teacher's whole distribution in the place of its choice (Hinton et al., arXiv 1503.02531).

Axes: B slates, N list positions, M candidates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.losses.likelihood import chosen_before, mean_over_lists
from training.model.layers import BLOCKED, is_free

#: What the list's own item has in logits above the best other one, at least. Much: where a beam
#: took it for what comes after it, the scores of the next item alone speak against it. A policy as
#: sure as that neither exploration nor a refresh could move: PostTrainSettings.soften.
FAVOUR = 4.0


def distillation_loss(
    logits_BNM: Tensor, lists_BN: Tensor, scores_BNM: Tensor, temperature: float
) -> Tensor:
    """Cross-entropy of the policy to softmax(scores / temperature), in nats a position.

    Args:
        logits_BNM: of the policy along ``lists_BN`` (GenReranker.block_logits).
        scores_BNM: the teacher's, of every candidate after the same items.
        temperature: near 0 only the teacher's best item counts.
    """
    before = chosen_before(lists_BN, logits_BNM.size(-1))[:, :-1]
    out = before | ~is_free(logits_BNM)
    log_p = logits_BNM.float().masked_fill(out, BLOCKED).log_softmax(dim=-1)
    scores_BNM = scores_BNM.masked_fill(out, BLOCKED)
    # The list's own item counts as the best: a beam had its reasons not to take the best next one.
    best_BN1 = scores_BNM.amax(dim=-1, keepdim=True)
    scores_BNM = scores_BNM.scatter(2, lists_BN.clamp(min=0).unsqueeze(-1), best_BN1)
    favour = torch.zeros_like(scores_BNM).scatter(2, lists_BN.clamp(min=0).unsqueeze(-1), FAVOUR)
    target = (scores_BNM / temperature + favour).masked_fill(out, BLOCKED).softmax(dim=-1)
    # Where a candidate is out both sides have nothing: 0 times a large number, but never NaN.
    each = -(target * log_p.masked_fill(out, 0.0)).sum(-1)
    return mean_over_lists(each, lists_BN >= 0)
