"""Verified OMTP: the exact one-at-a-time list of head 1, in fewer passes.

The heads draft H items; the next pass runs over the whole draft at once, and head 1 there says
what it would have chosen after each drafted item. The draft is kept as far as they agree, so every
pass settles between 1 and H items (self-speculative decoding, arXiv 1811.03115).

Axes: B batch, M candidates, n list size, H heads, S cached tokens.
"""

from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor, nn

from training.decoding.choice import block, choose
from training.decoding.rules import Rules, placed, restrict
from training.model.decoder import Decoder
from training.model.layers import block_where, causal_mask


class VerifiedDecode(nn.Module):
    """Greedy decoding equal to ``OmtpDecode(block=1)``; only ``passes`` differs, row by row."""

    def __init__(self, decoder: Decoder, list_size: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.list_size = list_size

    def forward(
        self,
        z_BMZ: Tensor,
        prior_BM: Tensor,
        temperature_B1: Tensor,
        seed_B1: Tensor,
        rules: Optional[Rules] = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As OmtpDecode.forward; verification is of greedy choices: temperatures are refused."""
        if bool((temperature_B1 > 0).any()):
            raise ValueError("verified decoding is greedy; temperature must be 0")
        z_BMD, e_BMR, f_BMR = self.decoder.split(z_BMZ)
        batch, heads, n = z_BMD.size(0), self.decoder.heads, self.list_size
        device = z_BMD.device
        rows = torch.arange(batch, device=device)
        memory = self.decoder.memory(z_BMD)
        cache = self.decoder.empty_cache(z_BMD)
        # One slot beyond the list takes what is written past its end.
        order = torch.full([batch, n + 1], -1, dtype=torch.long, device=device)
        log_probs = torch.zeros([batch, n + 1], device=device)
        passes = torch.ones([batch, 1], dtype=torch.int32, device=device)
        settled = torch.zeros([batch], dtype=torch.long, device=device)
        kept_BS = torch.ones([batch, 1], dtype=torch.bool, device=device)

        x_BTD = self.decoder.first(batch)
        h_BTD, cache = self.decoder(
            x_BTD, cache, memory, prior_BM, causal_mask(0, 1, device).to(z_BMD.dtype)
        )
        state_BD = h_BTD[:, 0]
        bias_BM = prior_BM
        pair_BWM = self.decoder.nothing_chosen(prior_BM)
        while True:
            draft_BH, log_prob_B = self._draft(
                state_BD, z_BMD, e_BMR, f_BMR, bias_BM, pair_BWM, settled.unsqueeze(1), rules
            )
            # The first of the draft is head 1's own choice: settled without a further pass.
            slot = settled.clamp(max=n)
            order[rows, slot] = draft_BH[:, 0]
            log_probs[rows, slot] = log_prob_B
            bias_BM = block(bias_BM, draft_BH[:, 0])
            pair_BWM = self.decoder.remember(pair_BWM, e_BMR, f_BMR, draft_BH[:, 0])
            if rules is not None:
                rules = placed(rules, settled.unsqueeze(1), draft_BH[:, 0])
            settled = settled + 1
            active = settled < n
            if not bool(active.any()):
                break
            passes += active.unsqueeze(1).int()
            step = torch.arange(heads, device=device)
            place = (settled.unsqueeze(1) + step).clamp(
                max=self.decoder.position.num_embeddings - 1
            )
            past = block_where(torch.zeros_like(kept_BS, dtype=z_BMD.dtype), ~kept_BS)
            mask = torch.cat(
                [
                    past[:, None, None, :].expand(-1, 1, heads, -1),
                    causal_mask(0, heads, device).to(z_BMD.dtype).expand(batch, 1, -1, -1),
                ],
                dim=3,
            )
            h_BTD, cache = self.decoder(
                self.decoder.embed(z_BMD, draft_BH, place), cache, memory, prior_BM, mask
            )
            query_BHD = self.decoder.queries(h_BTD)[:, :, 0]
            logits_BHM = query_BHD @ z_BMD.transpose(1, 2)
            agreed = torch.zeros([batch], dtype=torch.long, device=device)
            agrees = torch.ones([batch], dtype=torch.bool, device=device)
            for j in range(heads - 1):
                scores = logits_BHM[:, j] + bias_BM + pair_BWM[:, 0]
                if rules is not None:
                    scores = restrict(scores, (settled + j).unsqueeze(1), rules)
                item, log_prob = choose(scores, temperature_B1)
                agrees = agrees & (item == draft_BH[:, j + 1])
                # Where the draft was wrong, `item` becomes the first of the next draft below.
                slot = torch.where(agrees, settled + j, n).clamp(max=n)
                order[rows, slot] = item
                log_probs[rows, slot] = log_prob
                bias_BM = torch.where(agrees.unsqueeze(1), block(bias_BM, item), bias_BM)
                moved_BWM = self.decoder.remember(pair_BWM, e_BMR, f_BMR, item)
                pair_BWM = torch.where(agrees.view(-1, 1, 1), moved_BWM, pair_BWM)
                if rules is not None:
                    kept = torch.where(agrees, item, torch.full_like(item, -1))
                    rules = placed(rules, (settled + j).unsqueeze(1), kept)
                agreed = agreed + agrees.long()
            settled = settled + agreed
            state_BD = h_BTD[rows, agreed]
            kept_BS = torch.cat([kept_BS, step <= agreed.unsqueeze(1)], dim=1)
        return order[:, :n].int(), log_probs[:, :n].float(), passes

    def _draft(
        self,
        state_BD: Tensor,
        z_BMD: Tensor,
        e_BMR: Tensor,
        f_BMR: Tensor,
        bias_BM: Tensor,
        pair_BWM: Tensor,
        place_B1: Tensor,
        rules: Optional[Rules],
    ) -> tuple[Tensor, Tensor]:
        """What the H heads choose [B, H], each masking those before; head 1's log-probability."""
        queries_BHD = self.decoder.queries(state_BD.unsqueeze(1))[:, 0]
        logits_BHM = queries_BHD @ z_BMD.transpose(1, 2)
        greedy = torch.zeros([state_BD.size(0), 1], device=z_BMD.device)
        items: list[Tensor] = []
        first = torch.zeros([state_BD.size(0)], device=z_BMD.device)
        for head in range(self.decoder.heads):
            scores = logits_BHM[:, head] + bias_BM + pair_BWM[:, 0]
            if rules is not None:
                scores = restrict(scores, place_B1 + head, rules)
            item, log_prob = choose(scores, greedy)
            if head == 0:
                first = log_prob
            bias_BM = block(bias_BM, item)
            pair_BWM = self.decoder.remember(pair_BWM, e_BMR, f_BMR, item)
            if rules is not None:
                rules = placed(rules, place_B1 + head, item)
            items.append(item)
        return torch.stack(items, dim=1), first
