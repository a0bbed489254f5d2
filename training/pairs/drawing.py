"""Lists drawn from the policy: what policy pairs choose between.

Three ways to be near the policy and yet differ: each choice from the softmax; the list in the order
of one draw of noise a candidate; the greedy list with a few accidents.

Axes: B requests, L lists a request, N list positions, M candidates.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from training.data.batch import Batch
from training.decoding.choice import gumbel, gumbel_lists
from training.decoding.omtp import OmtpDecode
from training.model.gen_reranker import GenReranker
from training.model.layers import BLOCKED

Draw = Literal["temperature", "gumbel_top", "perturbed"]

#: Seeds that a slate has of its own, one for each list.
SEEDS = 64
#: Accidents of a ``perturbed`` list.
ACCIDENTS = 2


@torch.no_grad()
def draw_lists(
    policy: GenReranker,
    batch: Batch,
    list_size: int,
    draws: int,
    temperature: float,
    seed: Tensor,
    how: Draw = "temperature",
) -> Tensor:
    """The greedy list and ``draws`` others of each request, int64 [B, draws + 1, N].

    Args:
        temperature: above 0; ``perturbed`` does not look at it.
        seed: int64 [B]; a request's lists depend on its seed alone, not on the batch.
        how: ``temperature`` draws each item from softmax(scores / temperature). ``gumbel_top``
            adds one Gumbel noise to each candidate's scores / temperature, the same at all
            positions: who is lucky is so in the whole list (Kool et al., arXiv 1903.06059).
            ``perturbed`` is the greedy list with ACCIDENTS (``perturb``).
    """
    was_training = policy.training
    policy.eval()
    z, prior = policy.encode(batch)
    lists = draws + 1
    seeds = seed.unsqueeze(1) * SEEDS + torch.arange(lists, device=z.device)
    heat = torch.full([batch.size, lists], temperature, device=z.device)
    heat[:, 0] = 0.0
    decode = OmtpDecode(policy.decoder, list_size)
    order: Tensor
    if how == "perturbed":
        greedy, _, _ = decode(z, prior, heat[:, :1], seeds[:, :1])
        order = greedy.long().unsqueeze(1).expand(-1, lists, -1).clone()
        for number in range(1, lists):
            order[:, number] = perturb(order[:, number], batch.count, seeds[:, number])
    else:
        flat = seeds.view(-1, 1)
        noise = gumbel_lists(flat, list_size, batch.candidates)
        if how == "gumbel_top":
            noise = noise[:, :1].expand(-1, list_size, -1)
        memory = z.repeat_interleave(lists, 0), prior.repeat_interleave(lists, 0)
        order, _, _ = decode.lists(*memory, heat.view(-1, 1), noise, None)
        order = order.long().view(batch.size, lists, list_size)
    policy.train(was_training)
    return order


def perturb(order_BN: Tensor, count_B: Tensor, seed_B: Tensor) -> Tensor:
    """Lists with ACCIDENTS: a candidate comes to stand where another stood.

    If it was in the list already, the two change places; the other leaves the list otherwise.
    """
    order_BN = order_BN.clone()
    rows = torch.arange(order_BN.size(0), device=order_BN.device)
    candidate = torch.arange(int(count_B.max()), device=order_BN.device)
    for accident in range(ACCIDENTS):
        noise = gumbel(seed_B.unsqueeze(1), 2 * accident, order_BN.size(1))
        place = noise.masked_fill(order_BN < 0, BLOCKED).argmax(1)
        noise = gumbel(seed_B.unsqueeze(1), 2 * accident + 1, candidate.size(0))
        item = noise.masked_fill(candidate >= count_B.unsqueeze(1), BLOCKED).argmax(1)
        before = order_BN[rows, place]
        order_BN = torch.where(order_BN == item.unsqueeze(1), before.unsqueeze(1), order_BN)
        order_BN[rows, place] = item
    return order_BN
