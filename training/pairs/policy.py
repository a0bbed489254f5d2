"""Policy pairs: lists drawn from the policy itself, ranked by the evaluator.

Pairs of shown items say nothing of the candidates that were not shown, and push probability
there; here chosen and rejected both come from what the policy would serve.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.data.batch import Batch
from training.decoding.omtp import OmtpDecode
from training.model.gen_reranker import GenReranker
from training.pairs.base import Pairs, different
from training.pairs.ensemble import Ensemble
from training.pairs.evaluator import Evaluator


class PolicyPairs:
    """Best against worst, by the evaluator, of ``draws`` sampled lists and the greedy one.

    ``searched`` [S, n], if given, holds for each slate of the dataset one more list: the one that
    the evaluator would build itself. It is fixed, so it is made once.
    """

    def __init__(
        self,
        evaluator: Evaluator | Ensemble,
        list_size: int,
        draws: int,
        temperature: float,
        searched: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self.evaluator = evaluator
        self.searched = searched
        self.list_size = list_size
        self.draws = draws
        self.temperature = temperature

    @torch.no_grad()
    def pairs(self, batch: Batch, policy: GenReranker, seed: Tensor) -> Pairs:
        lists = draw_lists(policy, batch, self.list_size, self.draws, self.temperature, seed)
        if self.searched is not None:
            found = torch.from_numpy(self.searched[batch.row.cpu().numpy()]).to(lists.device)
            lists = torch.cat([lists, found.unsqueeze(1)], dim=1)
        value = self.evaluator.value(batch, lists)
        rows = torch.arange(batch.size, device=value.device)
        best, worst = value.argmax(1), value.argmin(1)
        chosen, rejected = lists[rows, best], lists[rows, worst]
        # Two draws of one list may differ in value by rounding: that is no preference.
        weight = (value[rows, best] > value[rows, worst]).float() * different(chosen, rejected)
        return Pairs(chosen, rejected, weight)


@torch.no_grad()
def draw_lists(
    policy: GenReranker,
    batch: Batch,
    list_size: int,
    draws: int,
    temperature: float,
    seed: Tensor,
) -> Tensor:
    """The greedy list and ``draws`` sampled ones of each request, int64 [B, draws + 1, n]."""
    was_training = policy.training
    policy.eval()
    z, prior = policy.encode(batch)
    lists = draws + 1
    heat = torch.full([batch.size, lists], temperature, device=z.device)
    heat[:, 0] = 0.0
    seeds = seed.unsqueeze(1) * 64 + torch.arange(lists, device=z.device)
    decode = OmtpDecode(policy.decoder, list_size)
    order: Tensor
    order, _, _ = decode(
        z.repeat_interleave(lists, 0),
        prior.repeat_interleave(lists, 0),
        heat.view(-1, 1),
        seeds.view(-1, 1),
    )
    policy.train(was_training)
    return order.long().view(batch.size, lists, list_size)
