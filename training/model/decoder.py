"""The decoder of Gen-Reranker: a causal Transformer over [BOS], y_1, y_2, ... with H heads.

Axes: B batch, T newest tokens, N list positions, H heads, M candidates, D width,
W the window of the pairwise term.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from contracts.features import MAX_LIST
from training.model.layers import DecoderLayer, block_where, is_free
from training.settings import PAIR_WINDOW, ModelSettings


class Decoder(nn.Module):
    """Hidden states h_t and the queries of the H heads.

    Head i at h_t asks for y_{t+i}: its logits are q_{t,i} . z_j / sqrt(D) + prior_j over the m
    candidates of the request (Eq. 5; the scaling and the prior are ours, docs/paper_index.md).
    """

    def __init__(self, settings: ModelSettings, max_list: int = MAX_LIST) -> None:
        super().__init__()
        width = settings.width
        self.width = width
        self.heads = settings.heads
        self.attention_heads = settings.attention_heads
        self.bos = nn.Parameter(torch.randn(width) * 0.02)
        self.token = nn.Linear(width, width)
        self.position = nn.Embedding(max_list + 1, width)
        nn.init.normal_(self.position.weight, std=0.02)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(
            DecoderLayer(
                width,
                settings.attention_heads,
                settings.feed_forward,
                settings.dropout,
                settings.cross_attention,
            )
            for _ in range(settings.decoder_layers)
        )
        self.pair_rank = settings.pair_rank
        self.fading = nn.Parameter(
            0.7 ** torch.arange(PAIR_WINDOW), requires_grad=settings.pair_rank > 0
        )
        self.query = nn.Linear(width, settings.heads * width)
        # Small, so that the untrained policy is the prior's.
        nn.init.normal_(self.query.weight, std=0.002 / math.sqrt(width))
        nn.init.zeros_(self.query.bias)

    def split(self, z_BMZ: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Z as the encoder gives it: z_BMD, and what the pairwise term needs, e and f [B, M, R]."""
        d, r = self.width, self.pair_rank
        return z_BMZ[..., :d], z_BMZ[..., d : d + r], z_BMZ[..., d + r :]

    def nothing_chosen(self, prior_BM: Tensor) -> Tensor:
        """The state of the pairwise term before the first choice [B, W, M]."""
        window = self.fading.size(0) if self.pair_rank > 0 else 1
        return torch.zeros_like(prior_BM).unsqueeze(1).expand(-1, window, -1)

    def remember(self, pair_BWM: Tensor, e_BMR: Tensor, f_BMR: Tensor, item_B: Tensor) -> Tensor:
        """The state of the pairwise term [B, W, M] after one more choice.

        At [:, w] it holds what the choices so far add to the scores w positions on: the term of
        the next position is [:, 0], and unrolled it is sum over s < k of
        g_{k-s} e_{y_s} . f_j / 4 with learned weights g_1 .. g_W, and 0 beyond
        (``GenReranker.pair_terms`` computes that for whole lists).
        """
        if self.pair_rank == 0:
            return pair_BWM
        row_B1M = self.influence(e_BMR, f_BMR, item_B.unsqueeze(1))
        later_BWM = torch.cat([pair_BWM[:, 1:], torch.zeros_like(row_B1M)], dim=1)
        return later_BWM + self.fading.unsqueeze(1) * row_B1M

    def influence(self, e_BMR: Tensor, f_BMR: Tensor, items_BT: Tensor) -> Tensor:
        """e_y . f_j / 4 of chosen items y and candidates j [B, T, M]; 0 for y = -1."""
        index = items_BT.clamp(min=0).long().unsqueeze(-1).expand(-1, -1, e_BMR.size(-1))
        rows_BTM = e_BMR.gather(1, index) @ f_BMR.transpose(1, 2) / 4.0  # sqrt of PAIR_WIDTH
        return rows_BTM.masked_fill((items_BT < 0).unsqueeze(-1), 0.0)

    def memory(self, z_BMD: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of Z for each layer: what every pass needs, computed once."""
        out: list[tuple[Tensor, Tensor]] = []
        for layer in self.layers:
            if layer.cross:
                out.append(layer.cross_attention.project(z_BMD))
            else:
                out.append((z_BMD, z_BMD))
        return out

    def empty_cache(self, z_BMD: Tensor) -> list[tuple[Tensor, Tensor]]:
        """A key/value cache of length 0 for each layer."""
        size = [z_BMD.size(0), self.attention_heads, 0, self.width // self.attention_heads]
        return [(z_BMD.new_zeros(size), z_BMD.new_zeros(size)) for _ in self.layers]

    def first(self, batch: int) -> Tensor:
        """The input [B, 1, D] of the first pass: [BOS]."""
        return (self.bos + self.position.weight[0]).expand(batch, 1, -1)

    def embed(self, z_BMD: Tensor, items_BT: Tensor, place: Tensor) -> Tensor:
        """Inputs [B, T, D] of chosen items; ``place`` [T] or [B, T] is their position, from 1."""
        index = items_BT.clamp(min=0).long().unsqueeze(-1).expand(-1, -1, z_BMD.size(-1))
        embedded: Tensor = self.token(z_BMD.gather(1, index)) + self.position(place)
        return embedded

    def forward(
        self,
        x_BTD: Tensor,
        cache: list[tuple[Tensor, Tensor]],
        memory: list[tuple[Tensor, Tensor]],
        prior_BM: Tensor,
        mask: Tensor,
        last_only: bool = False,
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Run T new tokens after the S in the cache.

        Args:
            mask: additive [T, S + T], or [B, 1, T, S + T] where rows differ in what they keep.
            last_only: give h of the newest token alone, T = 1: all that OMTP reads of a pass. The
                other tokens then leave the last layer once their keys and values are known.

        Returns:
            h_BTD and the cache with the new tokens appended.
        """
        memory_mask = block_where(torch.zeros_like(prior_BM), ~is_free(prior_BM))
        memory_mask = memory_mask.unsqueeze(1).unsqueeze(1)
        h_BTD = self.norm(x_BTD)
        longer: list[tuple[Tensor, Tensor]] = []
        for index, layer in enumerate(self.layers):
            key, value = layer.attention.project(h_BTD)
            key = torch.cat([cache[index][0], key], dim=2)
            value = torch.cat([cache[index][1], value], dim=2)
            longer.append((key, value))
            if last_only and index == len(self.layers) - 1:
                h_BTD, mask = h_BTD[:, -1:], mask[..., -1:, :]
            h_BTD = layer(h_BTD, key, value, mask, memory[index], memory_mask)
        return h_BTD, longer

    def queries(self, h_BTD: Tensor) -> Tensor:
        """The heads' queries [B, T, H, D], scaled."""
        q: Tensor = self.query(h_BTD) / math.sqrt(self.width)
        return q.view(q.size(0), q.size(1), self.heads, self.width)
