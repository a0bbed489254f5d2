"""From scores to a list without repetition: one ranking of all, or a matching of positions.

Axes: B batch, M candidates, N list positions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.decoding.choice import settle


def best_first(scores_BM: Tensor, blocked_BM: Tensor, list_size: int) -> tuple[Tensor, Tensor]:
    """The n best candidates, best first; score is the log-softmax over all real candidates.

    Args:
        blocked_BM: additive mask, BLOCKED at padded candidates.
    """
    masked_BM = scores_BM + blocked_BM
    shown = min(list_size, masked_BM.size(1))
    best_BK, items_BK = masked_BM.topk(shown, dim=1)
    free_BK = blocked_BM.gather(1, items_BK) == 0
    log_prob_BK = best_BK - masked_BM.logsumexp(dim=1, keepdim=True)
    order = torch.full([masked_BM.size(0), list_size], -1, device=masked_BM.device)
    log_prob = torch.zeros([masked_BM.size(0), list_size], device=masked_BM.device)
    order[:, :shown] = torch.where(free_BK, items_BK, torch.full_like(items_BK, -1))
    log_prob[:, :shown] = torch.where(free_BK, log_prob_BK, torch.zeros_like(log_prob_BK))
    return order.int(), log_prob


def match_positions(logits_BNM: Tensor, blocked_BM: Tensor) -> tuple[Tensor, Tensor]:
    """Each position in turn takes its best candidate that no earlier one took.

    Returns:
        order int32 [B, N], and the log-softmax of each choice over what was still free.
    """
    bias_BM = blocked_BM
    items: list[Tensor] = []
    scores: list[Tensor] = []
    for place in range(logits_BNM.size(1)):
        scores_BM = logits_BNM[:, place] + bias_BM
        item_B1 = scores_BM.argmax(dim=1, keepdim=True)
        bias_BM = bias_BM.scatter(1, item_B1, -1e9)  # BLOCKED
        items.append(item_B1)
        scores.append(scores_BM)
    order_BN, log_prob_BN = settle(torch.stack(scores, dim=1), torch.stack(items, dim=1), None)
    return order_BN.int(), log_prob_BN
