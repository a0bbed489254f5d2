"""NAR4Rec: all positions at once, by matching positions with candidates.

Ren et al., "Non-autoregressive Generative Models for Reranking Recommendation", KDD 2024. A
Transformer over the candidates, another over the positions that looks at them, and a dot product
between the two. The choice is de-duplicated from the first position on. The paper's contrastive
decoding, which also pushes like items apart, and its evaluator are in nar4rec_peer.py.

Axes: B batch, M padded candidates, N list positions, D width.
"""

from __future__ import annotations

import math
from typing import Optional

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from contracts.features import MAX_CANDIDATES, FeatureSpec
from training.baselines.candidates import CandidateInput
from training.baselines.choosing import match_positions
from training.model.layers import EncoderLayer, FeedForward
from training.settings import ModelSettings


class PositionLayer(nn.Module):
    """List positions look at one another, as far as a mask lets them, and at the candidates."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        width = settings.width
        self.heads = settings.attention_heads
        self.own = nn.Linear(width, 3 * width)
        self.own_out = nn.Linear(width, width)
        self.own_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, settings.feed_forward)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(
        self,
        t_BND: Tensor,
        key_BMD: Tensor,
        value_BMD: Tensor,
        mask: Tensor,
        among: Optional[Tensor] = None,
    ) -> Tensor:
        """One block.

        Args:
            t_BND: may have a batch of 1, where it does not depend on the request.
            key_BMD, value_BMD: projections of the candidates.
            mask: additive [B, 1, 1, M], of candidates. among: additive [N, N], of positions.
        """
        query, key, value = self.own(t_BND).chunk(3, dim=2)
        seen = self.own_out(self.attend(query, key, value, among))
        t_BND = self.own_norm(t_BND + self.dropout(seen)).expand(key_BMD.size(0), -1, -1)
        seen = self.out(self.attend(self.query(t_BND), key_BMD, value_BMD, mask))
        t_BND = self.norm(t_BND + self.dropout(seen))
        return self.feed_forward_norm(  # type: ignore[no-any-return]
            t_BND + self.dropout(self.feed_forward(t_BND))
        )

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Optional[Tensor]) -> Tensor:
        """Multi-head attention of [B, N, D] to [B, S, D]."""
        batch, width = query.size(0), query.size(2) // self.heads
        query, key, value = [
            one.view(batch, one.size(1), self.heads, width).transpose(1, 2)
            for one in (query, key, value)
        ]
        seen = scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return seen.transpose(1, 2).flatten(2)


class Nar4Rec(nn.Module):
    """``encoder_layers`` blocks over candidates, ``decoder_layers`` over positions, one pass."""

    def __init__(
        self, spec: FeatureSpec, settings: ModelSettings, positions: int = MAX_CANDIDATES
    ) -> None:
        super().__init__()
        width = settings.width
        self.width = width
        self.input = CandidateInput(spec, width, positions)
        self.candidate_layers = nn.ModuleList(
            EncoderLayer(width, settings.attention_heads, settings.feed_forward, settings.dropout)
            for _ in range(settings.encoder_layers)
        )
        self.place = nn.Embedding(spec.list_size, width)
        # Keys and values of the candidates for all layers, by one product.
        self.memory = nn.Linear(width, 2 * settings.decoder_layers * width)
        self.position_layers = nn.ModuleList(
            PositionLayer(settings) for _ in range(settings.decoder_layers)
        )

    def forward(
        self,
        item_cat: Tensor,
        item_dense: Tensor,
        user_cat: Tensor,
        user_dense: Tensor,
        count: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Lists as the package says."""
        logits_BNM, blocked_BM = self.logits(item_cat, item_dense, user_cat, user_dense, count)
        return match_positions(logits_BNM, blocked_BM)

    def logits(
        self,
        item_cat: Tensor,
        item_dense: Tensor,
        user_cat: Tensor,
        user_dense: Tensor,
        count: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """What each position gives each candidate [B, N, M], and the mask [B, M]."""
        logits_BNM, blocked_BM, _ = self.match(item_cat, item_dense, user_cat, user_dense, count)
        return logits_BNM, blocked_BM

    def match(
        self,
        item_cat: Tensor,
        item_dense: Tensor,
        user_cat: Tensor,
        user_dense: Tensor,
        count: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``logits``, and the candidates as the matching sees them [B, M, D]."""
        z_BMD, blocked_BM = self.input(item_cat, item_dense, user_cat, user_dense, count)
        mask = blocked_BM.unsqueeze(1).unsqueeze(1)
        for layer in self.candidate_layers:
            z_BMD = layer(z_BMD, mask)
        t_BND = self.place.weight.unsqueeze(0)
        memory = self.memory(z_BMD).split(self.width, 2)
        for index, layer in enumerate(self.position_layers):
            t_BND = layer(t_BND, memory[2 * index], memory[2 * index + 1], mask)
        return t_BND @ z_BMD.transpose(1, 2) / math.sqrt(self.width), blocked_BM, z_BMD
