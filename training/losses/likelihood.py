"""Log-probability of lists under the policy's factorisations.

Axes: B batch, N list positions, H heads, M candidates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.model.layers import BLOCKED


def chosen_before(lists_BN: Tensor, candidates: int) -> Tensor:
    """bool [B, N + 1, M]: at [b, k, j] whether candidate j is among y_1 .. y_k."""
    batch, length = lists_BN.shape
    picked = torch.zeros(batch, length + 1, candidates, device=lists_BN.device)
    valid = (lists_BN >= 0).to(picked.dtype).unsqueeze(-1)
    picked[:, 1:].scatter_(2, lists_BN.clamp(min=0).unsqueeze(-1), valid)
    return picked.cumsum(dim=1) > 0


def list_log_probs(logits_BNM: Tensor, lists_BN: Tensor) -> Tensor:
    """log p(y_k | y_<k, X) of each position [B, N]; 0 at padding (-1).

    The softmax runs over the request's candidates not yet chosen, as in decoding. ``logits_BNM``
    decides the factorisation (GenReranker.block_logits).
    """
    before = chosen_before(lists_BN, logits_BNM.size(-1))[:, :-1]
    log_p = logits_BNM.float().masked_fill(before, BLOCKED).log_softmax(dim=-1)
    chosen = log_p.gather(2, lists_BN.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return chosen.masked_fill(lists_BN < 0, 0.0)


def window_log_probs(logits_BNHM: Tensor, lists_BN: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability that head i at h_t gives y_{t+i} [B, N, H], and where it is defined.

    Everything before y_{t+i} in the list is masked, the items of the window among it: that is
    what OMTP decoding masks when head i speaks.
    """
    _, length, heads, candidates = logits_BNHM.shape
    t = torch.arange(length, device=lists_BN.device).unsqueeze(1)
    target = t + torch.arange(heads, device=lists_BN.device)  # [N, H], from 0
    inside = target < length
    target = target.clamp(max=length - 1)
    before = chosen_before(lists_BN, candidates)[:, target]  # [B, N, H, M]
    log_p = logits_BNHM.float().masked_fill(before, BLOCKED).log_softmax(dim=-1)
    items = lists_BN[:, target]
    valid = inside & (items >= 0)
    chosen = log_p.gather(3, items.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return chosen.masked_fill(~valid, 0.0), valid


def mean_over_lists(values: Tensor, valid: Tensor) -> Tensor:
    """Mean within each list first, then over the lists: every list weighs the same.

    That also makes the loss of a global batch the mean of the losses of its equal shards, which
    is what distributed training averages. Shapes [B, ...]; a list without valid entries gives 0.
    """
    values, valid = values.flatten(1), valid.flatten(1).to(values.dtype)
    return ((values * valid).sum(1) / valid.sum(1).clamp(min=1)).mean()
