"""The choice of one item from scores, greedy or sampled, written for TorchScript.

Axes: B batch, M candidates.
"""

from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor

from training.model.layers import block_where, is_free


def _mix(x: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele et al. 2014) on int64; shifts made logical by masks."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -4658895280553007687
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def gumbel(seed_B1: Tensor, step: int, candidates: int) -> Tensor:
    """Gumbel(0, 1) noise [B, M], a pure function of (seed, step, candidate index).

    Counter-based, so a request's draw is the same alone, in any batch and in any padding.
    """
    index = torch.arange(candidates, device=seed_B1.device) + step * 4096 + 1
    return _gumbel(_mix(seed_B1) + index * -7046029254386353131)


def gumbel_lists(seed_B1: Tensor, list_size: int, candidates: int) -> Tensor:
    """The noise of every position [B, N, M]: at [:, step] that of ``gumbel``."""
    return gumbel_at(seed_B1, counters(list_size, candidates, seed_B1.device))


def counters(list_size: int, candidates: int, device: torch.device) -> Tensor:
    """What the noise of each position and candidate adds to its row's seed, int64 [N, M]."""
    step_N1 = torch.arange(list_size, device=device).unsqueeze(1)
    index_NM = torch.arange(candidates, device=device) + step_N1 * 4096 + 1
    return index_NM * -7046029254386353131


def gumbel_at(seed_B1: Tensor, counter_NM: Tensor) -> Tensor:
    """The noise [B, N, M] of the ``counters``."""
    return _gumbel(_mix(seed_B1).unsqueeze(2) + counter_NM)


def _gumbel(counter: Tensor) -> Tensor:
    bits = _mix(counter)
    # 52 bits: adding one half is then exact, so that neither 0 nor 1 can come out.
    uniform = (((bits >> 12) & 0xFFFFFFFFFFFFF).double() + 0.5) / 4503599627370496.0
    return -torch.log(-torch.log(uniform)).float()


def tempered(scores: Tensor, temperature: Tensor) -> Tensor:
    """Scores [..., M] over the temperature [..., 1]; where it is 0, as they are."""
    warm = temperature > 0
    heat = torch.where(warm, temperature, torch.ones_like(temperature))
    # Below the best one, and blocked again: no temperature can overflow the best score, or bring
    # a blocked candidate near the free ones.
    below = scores - scores.amax(dim=-1, keepdim=True)
    return block_where(below / heat.clamp(min=1e-30), ~is_free(scores))


def pick(scores_BM: Tensor, temperature_B1: Tensor, noise_BM: Optional[Tensor] = None) -> Tensor:
    """The candidate of each row, int64 [B, 1]; any one where nothing is free.

    Args:
        scores_BM: logits, BLOCKED (or less) where a candidate may not be chosen.
        temperature_B1: 0 is greedy; above 0 draws from softmax(scores / temperature).
        noise_BM: Gumbel noise, where any temperature is above 0.
    """
    if noise_BM is None:
        return scores_BM.argmax(dim=1, keepdim=True)
    scaled = tempered(scores_BM, temperature_B1)
    return torch.where(temperature_B1 > 0, scaled + noise_BM, scaled).argmax(dim=1, keepdim=True)


def settle(scores: Tensor, items: Tensor, temperature: Optional[Tensor]) -> tuple[Tensor, Tensor]:
    """What was picked, and how likely it was.

    Args:
        scores: [..., M], each as it was when its item was picked; items: int64 [..., 1].
        temperature: [..., 1] or of a shape that fits; None where all is greedy.

    Returns:
        items [...], -1 where nothing was free; log_prob [...], under the temperature where one is
        set, 0 where nothing was free.
    """
    scaled = scores if temperature is None else tempered(scores, temperature)
    log_prob = scaled.gather(-1, items) - scaled.logsumexp(dim=-1, keepdim=True)
    free = is_free(scores.gather(-1, items))
    items = torch.where(free, items, torch.full_like(items, -1))
    return items.squeeze(-1), torch.where(free, log_prob, torch.zeros_like(log_prob)).squeeze(-1)


def choose(
    scores_BM: Tensor, temperature_B1: Tensor, noise_BM: Optional[Tensor] = None
) -> tuple[Tensor, Tensor]:
    """``pick`` and ``settle`` of one position: item int64 [B] and log_prob [B]."""
    items = pick(scores_BM, temperature_B1, noise_BM)
    return settle(scores_BM, items, None if noise_BM is None else temperature_B1)


def block(bias_BM: Tensor, item_B: Tensor) -> Tensor:
    """The bias with the chosen items blocked; -1 blocks nothing new (nothing is free there)."""
    return block_picked(bias_BM, item_B.clamp(min=0).unsqueeze(1))


def block_picked(bias_BM: Tensor, item_B1: Tensor) -> Tensor:
    """The bias with what ``pick`` gave blocked."""
    return bias_BM.scatter(1, item_B1, -1e9)  # BLOCKED
