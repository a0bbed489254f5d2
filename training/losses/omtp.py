"""Ordered Multi-token Prediction: L_n, L_o and L_omtp = lambda_1 L_n + lambda_2 L_o.

Axes: B batch, N list positions, H heads (and window size), M candidates, P permutations,
W subsets of a window.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import combinations, permutations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from training.losses.likelihood import chosen_before, mean_over_lists, window_log_probs
from training.model.layers import BLOCKED


def next_items_loss(logits_BNHM: Tensor, lists_BN: Tensor) -> Tensor:
    """L_n: cross-entropy of every head at every step, -log p_i(y_{t+i} | y_<=t, X)."""
    log_p, valid = window_log_probs(logits_BNHM, lists_BN)
    return -mean_over_lists(log_p, valid)


def ordering_loss(
    logits_BNHM: Tensor,
    lists_BN: Tensor,
    gain_BN: Tensor | None,
    max_permutations: int = 24,
    generator: torch.Generator | None = None,
) -> Tensor:
    """L_o: for each window of H items, permutations with a higher S get a higher probability.

    For S(Y+) > S(Y-): -log sigmoid(log P(Y+ | prefix) - log P(Y- | prefix)), the mean over such
    pairs of permutations of the window's items. P is the block factorisation: head i gives the
    i-th item, everything placed before it is masked.

    Args:
        gain_BN: feedback of each item; S is the window's NDCG numerator. Windows whose items all
            have the same gain, and all windows when it is None, use agreement with the exposure
            order: S = -(number of inverted pairs).
        max_permutations: from more permutations than this, a random subset with the exposed order
            in it, and with orders of short windows (``generator`` makes that repeatable).
    """
    heads = logits_BNHM.size(2)
    perms_PH = _permutations(heads, max_permutations, generator).to(lists_BN.device)
    log_p_BNP, possible_BNP = _permutation_log_probs(logits_BNHM, lists_BN, perms_PH)
    score_BNP = _permutation_scores(lists_BN, gain_BN, perms_PH)
    better = score_BNP.unsqueeze(3) > score_BNP.unsqueeze(2) + 1e-6
    better &= possible_BNP.unsqueeze(3) & possible_BNP.unsqueeze(2)
    margin = log_p_BNP.unsqueeze(3) - log_p_BNP.unsqueeze(2)
    return mean_over_lists(-logsigmoid(margin), better)


def _permutations(heads: int, limit: int, generator: torch.Generator | None) -> Tensor:
    """[P, H] permutations of the window's slots; the first is the identity."""
    if math.factorial(heads) <= limit:
        return torch.tensor(list(permutations(range(heads))))
    identity = torch.arange(heads)
    drawn = [identity]
    while len(drawn) < limit:
        # Every second one moves the first slots only, two or more: windows at a list's end have
        # no others, and of eight slots random permutations would hardly ever leave them be.
        size = heads if len(drawn) % 2 == 0 else 2 + len(drawn) // 2 % (heads - 1)
        moved = torch.randperm(size, generator=generator)
        if torch.equal(moved, identity[:size]):
            moved = moved.flip(0)
        drawn.append(torch.cat([moved, identity[size:]]))
    unique: Tensor = torch.unique(torch.stack(drawn), dim=0)
    return unique


@lru_cache(maxsize=8)
def _subsets(heads: int) -> tuple[tuple[int, ...], ...]:
    """Every set of slots that can have been placed before a slot: all but the whole window."""
    return tuple(s for size in range(heads) for s in combinations(range(heads), size))


def _permutation_log_probs(
    logits_BNHM: Tensor, lists_BN: Tensor, perms_PH: Tensor
) -> tuple[Tensor, Tensor]:
    """log P [B, N, P] of each permutation of the window after each prefix, and whether it exists.

    A window at the end of a list is shorter; only permutations that leave its missing slots in
    place exist there.
    """
    length, heads, candidates = logits_BNHM.shape[1:]
    items_BNH = _windows(lists_BN, heads)
    valid_BNH = items_BNH >= 0
    prefix_BNM = chosen_before(lists_BN, candidates)[:, :length]
    logits = logits_BNHM.float().masked_fill(prefix_BNM.unsqueeze(2), BLOCKED)
    # Logit of head i for the item in slot s [B, N, H, H].
    index = items_BNH.clamp(min=0).unsqueeze(2).expand(-1, -1, heads, -1)
    logit_BNHS = logits.gather(3, index)
    slots = torch.arange(heads, device=lists_BN.device)
    placed_PHS = torch.zeros(len(perms_PH), heads, heads, device=lists_BN.device)
    placed_PHS.scatter_(2, perms_PH.unsqueeze(-1), 1.0)
    placed_PHS = placed_PHS.cumsum(1) - placed_PHS  # slots placed before step i
    if heads <= 5:
        norm = _normalisers_by_subset(logits, items_BNH, placed_PHS)
    else:
        norm = _normalisers_by_permutation(logits, items_BNH, placed_PHS)
    chosen = logit_BNHS[:, :, slots, perms_PH]  # [B, N, P, H]
    terms = (chosen - norm).masked_fill(~valid_BNH.unsqueeze(2), 0.0)
    stays = (perms_PH == slots) | valid_BNH.unsqueeze(2)
    return terms.sum(-1), stays.all(-1) & valid_BNH[:, :, :1]


def _normalisers_by_subset(logits: Tensor, items_BNH: Tensor, placed_PHS: Tensor) -> Tensor:
    """log-sum-exp over the candidates still free, for each permutation and step [B, N, P, H].

    Permutations that placed the same set of slots share it: 15 sets instead of 24 x 4 for H = 4.
    """
    heads = items_BNH.size(2)
    subsets = _subsets(heads)
    weight = 2 ** torch.arange(heads, device=logits.device)
    column_of = torch.zeros(2**heads, dtype=torch.long, device=logits.device)
    norms = []
    for column, subset in enumerate(subsets):
        free = logits[:, :, len(subset)]
        if subset:
            free = free.scatter(2, items_BNH[:, :, list(subset)].clamp(min=0), BLOCKED)
        norms.append(free.logsumexp(-1))
        column_of[sum(2**slot for slot in subset)] = column
    table_BNW = torch.stack(norms, dim=-1)
    norm_BNPH: Tensor = table_BNW[:, :, column_of[(placed_PHS.long() * weight).sum(-1)]]
    return norm_BNPH


def _normalisers_by_permutation(logits: Tensor, items_BNH: Tensor, placed_PHS: Tensor) -> Tensor:
    """The same for large H, where the sets outnumber the sampled permutations."""
    out = []
    for placed_HS in placed_PHS:
        steps = []
        for step in range(items_BNH.size(2)):
            used = placed_HS[step].nonzero().squeeze(-1)
            free = logits[:, :, step]
            if len(used):
                free = free.scatter(2, items_BNH[:, :, used].clamp(min=0), BLOCKED)
            steps.append(free.logsumexp(-1))
        out.append(torch.stack(steps, -1))
    return torch.stack(out, dim=2)


def _permutation_scores(lists_BN: Tensor, gain_BN: Tensor | None, perms_PH: Tensor) -> Tensor:
    """S [B, N, P]: discounted gain of the window, or minus its inversions where gains tie."""
    heads = perms_PH.size(1)
    first, second = torch.triu_indices(heads, heads, offset=1, device=lists_BN.device)
    inversions = (perms_PH[:, first] > perms_PH[:, second]).sum(-1)
    agreement = -inversions.to(torch.float32).expand(*lists_BN.shape, -1)
    if gain_BN is None:
        return agreement
    valid = _windows(lists_BN, heads) >= 0
    gain_BNH = _windows(gain_BN, heads, fill=0.0).masked_fill(~valid, 0.0)
    discount = 1 / torch.log2(torch.arange(heads, device=lists_BN.device) + 2.0)
    score = (gain_BNH[:, :, perms_PH] * discount).sum(-1)
    low = gain_BNH.masked_fill(~valid, float("inf")).amin(-1)
    high = gain_BNH.masked_fill(~valid, -float("inf")).amax(-1)
    return torch.where((high > low).unsqueeze(-1), score, agreement)


def _windows(values_BN: Tensor, heads: int, fill: float = -1) -> Tensor:
    """[B, N, H]: at [b, t] the values of positions t + 1 .. t + H, ``fill`` beyond the end."""
    pad = values_BN.new_full((values_BN.size(0), heads - 1), fill)
    windows: Tensor = torch.cat([values_BN, pad], dim=1).unfold(1, heads, 1)
    return windows
