"""What a policy would have done where another one's lists were shown.

Axes: B requests, L lists a request, N list positions, M candidates.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from training.data.arrays import SlateArrays
from training.data.batch import Batch
from training.decoding.omtp import OmtpDecode
from training.evaluation.alignment import Float64, Floats
from training.losses.likelihood import chosen_before
from training.model.gen_reranker import GenReranker
from training.model.layers import BLOCKED


class Policy(Protocol):
    """Anything that draws lists item by item, with known probabilities."""

    def next_item(self, batch: Batch, lists_BLN: Tensor) -> Tensor:
        """log pi(a | y_1 .. y_k-1, x) [B, L, N, M] of every candidate a at each position k.

        -inf, or nearly so, where it never comes: candidates already listed, padding. Meaningless
        at and after -1.
        """
        ...

    def draw(self, batch: Batch, length: int, draws: int, seed: int) -> Tensor:
        """Lists of the policy int64 [B, draws, length], -1 once all candidates are in."""
        ...


class ServedPolicy:
    """A Gen-Reranker as it serves: OMTP's block factorisation, chosen items masked.

    Args:
        temperature: one for each slate of the arrays that batches come from [S] (``Batch.row``
            says which), or one for all. 0 is greedy: the policy that does one thing alone.
    """

    def __init__(self, model: GenReranker, temperature: float | Floats) -> None:
        self.model = model.eval()
        self._temperature = torch.as_tensor(temperature, dtype=torch.float32)
        if not bool((torch.isfinite(self._temperature) & (self._temperature >= 0)).all()):
            raise ValueError("temperature must be 0 or more, and finite")

    @torch.no_grad()
    def next_item(self, batch: Batch, lists_BLN: Tensor) -> Tensor:
        z, prior = self.model.encode(batch)
        lists = lists_BLN.size(1)
        flat = lists_BLN.flatten(0, 1)
        logits = self.model.block_logits(
            z.repeat_interleave(lists, 0), prior.repeat_interleave(lists, 0), flat
        )
        taken = chosen_before(flat, logits.size(-1))[:, :-1]
        logits = logits.float().masked_fill(taken, BLOCKED)
        heat = self._heat(batch).repeat_interleave(lists, 0).unsqueeze(-1)
        # As in decoding (choice.py): below the best one first, so that no temperature overflows.
        below = logits - logits.amax(dim=-1, keepdim=True)
        warm = (below / heat.clamp(min=1e-30)).log_softmax(-1)
        best = torch.zeros_like(warm).scatter(-1, logits.argmax(-1, keepdim=True), 1.0).log()
        log_p = torch.where(heat > 0, warm, best)
        return log_p.view(batch.size, lists, *log_p.shape[1:])

    @torch.no_grad()
    def draw(self, batch: Batch, length: int, draws: int, seed: int) -> Tensor:
        z, prior = self.model.encode(batch)
        number = torch.arange(draws, device=z.device)
        # A slate's draws have 64 seeds of their own, whatever batch it falls into.
        seeds = ((batch.row.unsqueeze(1) + 1) * 64 + number) * 1_000_003 + seed
        order, _, _ = OmtpDecode(self.model.decoder, length)(
            z.repeat_interleave(draws, 0),
            prior.repeat_interleave(draws, 0),
            self._heat(batch).repeat_interleave(draws, 0),
            seeds.view(-1, 1),
        )
        lists: Tensor = order.long()
        return lists.view(batch.size, draws, length)

    def _heat(self, batch: Batch) -> Tensor:
        """Temperatures [B, 1]."""
        heat = self._temperature.to(batch.row.device)
        return (heat[batch.row] if heat.ndim else heat.expand(batch.size)).unsqueeze(1)


def logged_log_probs(policy: Policy, slates: SlateArrays, batch_size: int = 64) -> Float64:
    """log pi(y_k | y_<k, x) of each logged choice [S, N]; 0 at padding, -inf where impossible."""
    out = np.zeros(slates.exposed.shape)
    for batch in slates.batches(batch_size):
        chosen = of_lists(policy.next_item(batch, batch.exposed.unsqueeze(1))[:, 0], batch.exposed)
        out[batch.row.numpy(), : chosen.size(1)] = chosen.double().numpy()
    return out


def of_lists(log_p_BNM: Tensor, lists_BN: Tensor) -> Tensor:
    """The log-probability of what the lists hold [B, N]; 0 at -1."""
    chosen = log_p_BNM.gather(-1, lists_BN.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return chosen.masked_fill(lists_BN < 0, 0.0)


def marginals(log_p_BLNM: Tensor, lists_BLN: Tensor) -> Tensor:
    """p(a at k | x) [B, N, M] by Monte-Carlo over L lists of a policy.

    The mean over lists of pi(a | y_1 .. y_k-1, x): the chance of the last step is summed exactly
    (Rao and Blackwell), so the first position is exact with any number of lists.
    """
    ended = (lists_BLN < 0).unsqueeze(-1)
    mean: Tensor = log_p_BLNM.exp().masked_fill(ended, 0.0).mean(dim=1)
    return mean
