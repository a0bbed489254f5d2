"""OMTP decoding: H items a pass, chosen items masked; with block 1, one item a pass.

Axes: B batch, M candidates, n list size, H heads, D width.
"""

from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor, nn

from training.decoding.choice import block_picked, gumbel_lists, pick, settle
from training.decoding.rules import Rules, placed, restrict
from training.model.decoder import Decoder
from training.model.layers import causal_mask


class OmtpDecode(nn.Module):
    """Decodes n items in ceil(n / block) passes; block = H is OMTP, block = 1 one at a time.

    n and the block are fixed when the module is made. TorchScript compiles it, and training
    samples from it: what is trained, evaluated and served is this code.
    """

    def __init__(self, decoder: Decoder, list_size: int, block: int | None = None) -> None:
        super().__init__()
        self.decoder = decoder
        self.list_size = list_size
        self.block = decoder.heads if block is None else block
        if not 1 <= self.block <= decoder.heads:
            raise ValueError(f"block is {self.block}; allowed: 1 to {decoder.heads} (H)")

    def forward(
        self,
        z_BMZ: Tensor,
        prior_BM: Tensor,
        temperature_B1: Tensor,
        seed_B1: Tensor,
        rules: Optional[Rules] = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decode a list for each row.

        Args:
            z_BMZ, prior_BM: of the encoder.
            temperature_B1: float32; 0 is greedy. seed_B1: int64; read where temperature > 0.
            rules: of ``make_rules``; log_prob is then under the policy within the rules.

        Returns:
            order int32 [B, n] (candidate indices, -1 once all are shown), log_prob float32
            [B, n] (0 there), passes int32 [B, 1].
        """
        noise_BNM: Optional[Tensor] = None
        if bool((temperature_B1 > 0).any()):
            noise_BNM = gumbel_lists(seed_B1, self.list_size, z_BMZ.size(1))
        return self.lists(z_BMZ, prior_BM, temperature_B1, noise_BNM, rules)

    def lists(
        self,
        z_BMZ: Tensor,
        prior_BM: Tensor,
        temperature_B1: Tensor,
        noise_BNM: Optional[Tensor],
        rules: Optional[Rules],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As ``forward`` with the noise given, None for greedy: no step depends on the data."""
        z_BMD, e_BMR, f_BMR = self.decoder.split(z_BMZ)
        memory = self.decoder.memory(z_BMD)
        cache = self.decoder.empty_cache(z_BMD)
        x_BTD = self.decoder.first(z_BMD.size(0))
        bias_BM = prior_BM
        pair_BWM = self.decoder.nothing_chosen(prior_BM)
        items: list[Tensor] = []
        scores: list[Tensor] = []
        passes = 0
        while len(items) < self.list_size:
            mask = causal_mask(cache[0][0].size(2), x_BTD.size(1), z_BMD.device)
            h_B1D, cache = self.decoder(
                x_BTD, cache, memory, prior_BM, mask.to(z_BMD.dtype), last_only=True
            )
            passes += 1
            queries_BHD = self.decoder.queries(h_B1D)[:, 0]
            logits_BHM = queries_BHD @ z_BMD.transpose(1, 2)
            first = len(items)
            for head in range(min(self.block, self.list_size - first)):
                bias_BM, pair_BWM, rules = self.choose(
                    logits_BHM[:, head],
                    bias_BM,
                    pair_BWM,
                    (e_BMR, f_BMR),
                    temperature_B1,
                    noise_BNM,
                    rules,
                    items,
                    scores,
                )
            places = torch.arange(first + 1, len(items) + 1, device=z_BMD.device)
            x_BTD = self.decoder.embed(z_BMD, torch.cat(items[first:], dim=1), places)
        return self.settled(items, scores, passes, temperature_B1, noise_BNM is not None)

    def choose(
        self,
        logits_BM: Tensor,
        bias_BM: Tensor,
        pair_BWM: Tensor,
        pair_vectors: tuple[Tensor, Tensor],
        temperature_B1: Tensor,
        noise_BNM: Optional[Tensor],
        rules: Optional[Rules],
        items: list[Tensor],
        scores: list[Tensor],
    ) -> tuple[Tensor, Tensor, Optional[Rules]]:
        """Choose one more item: it is appended to ``items`` [B, 1], what it scored to ``scores``.

        Returns:
            bias, pairwise term and rules for the next one.
        """
        place = len(items)
        scores_BM = logits_BM + bias_BM
        if self.decoder.pair_rank > 0:
            scores_BM = scores_BM + pair_BWM[:, 0]
        place_B1: Optional[Tensor] = None
        if rules is not None:
            place_B1 = torch.full([logits_BM.size(0), 1], place, device=logits_BM.device)
            scores_BM = restrict(scores_BM, place_B1, rules)
        noise_BM: Optional[Tensor] = None
        if noise_BNM is not None:
            noise_BM = noise_BNM[:, place]
        item_B1 = pick(scores_BM, temperature_B1, noise_BM)
        items.append(item_B1)
        scores.append(scores_BM)
        e_BMR, f_BMR = pair_vectors
        bias_BM = block_picked(bias_BM, item_B1)
        pair_BWM = self.decoder.remember(pair_BWM, e_BMR, f_BMR, item_B1[:, 0])
        if rules is not None and place_B1 is not None:
            chosen_B, _ = settle(scores_BM, item_B1, None)
            rules = placed(rules, place_B1, chosen_B)
        return bias_BM, pair_BWM, rules

    def settled(
        self,
        items: list[Tensor],
        scores: list[Tensor],
        passes: int,
        temperature_B1: Tensor,
        sampled: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What ``forward`` gives, of the whole list at once: a loop costs by its steps."""
        order_BN, log_prob_BN = settle(
            torch.stack(scores, dim=1),
            torch.stack(items, dim=1),
            temperature_B1.unsqueeze(1) if sampled else None,
        )
        return (
            order_BN.int(),
            log_prob_BN.float(),
            torch.full_like(temperature_B1, passes, dtype=torch.int32),
        )
