"""NAR4Rec: all positions at once, by matching positions with candidates.

Ren et al., "Non-autoregressive Generative Models for Reranking Recommendation", KDD 2024. A
Transformer over the candidates, another over the positions that looks at them, and a dot product
between the two. The choice is de-duplicated from the first position on. The paper's contrastive
decoding, which also pushes like items apart, and its evaluator are left out.

Axes: B batch, M padded candidates, N list positions, D width.
"""

from __future__ import annotations

import math
from typing import Optional

from torch import Tensor, nn

from contracts.features import MAX_CANDIDATES, FeatureSpec
from training.baselines.candidates import CandidateInput
from training.baselines.choosing import match_positions
from training.model.layers import Attention, EncoderLayer, FeedForward
from training.settings import ModelSettings


class PositionLayer(nn.Module):
    """Positions look at one another, as far as ``among`` lets them, and at the candidates."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        width = settings.width
        self.attention = Attention(width, settings.attention_heads)
        self.attention_norm = nn.LayerNorm(width)
        self.cross_attention = Attention(width, settings.attention_heads)
        self.cross_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, settings.feed_forward)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(
        self, t_BND: Tensor, z_BMD: Tensor, mask: Tensor, among: Optional[Tensor] = None
    ) -> Tensor:
        """One block; ``t_BND`` may have a batch of 1, where it does not depend on the request."""
        key, value = self.attention.project(t_BND)
        seen = self.attention(t_BND, key, value, among)
        t_BND = self.attention_norm(t_BND + self.dropout(seen)).expand(z_BMD.size(0), -1, -1)
        key, value = self.cross_attention.project(z_BMD)
        seen = self.cross_attention(t_BND, key, value, mask)
        t_BND = self.cross_norm(t_BND + self.dropout(seen))
        return self.feed_forward_norm(  # type: ignore[no-any-return]
            t_BND + self.dropout(self.feed_forward(t_BND))
        )


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
        z_BMD, blocked_BM = self.input(item_cat, item_dense, user_cat, user_dense, count)
        mask = blocked_BM.unsqueeze(1).unsqueeze(1)
        for layer in self.candidate_layers:
            z_BMD = layer(z_BMD, mask)
        t_BND = self.place.weight.unsqueeze(0)
        for layer in self.position_layers:
            t_BND = layer(t_BND, z_BMD, mask)
        return t_BND @ z_BMD.transpose(1, 2) / math.sqrt(self.width), blocked_BM
