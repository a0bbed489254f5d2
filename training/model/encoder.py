"""The encoder of Gen-Reranker: candidates and user to Z and the prior of the matching logits.

Axes: B batch, M padded candidates, C categorical columns, E dense columns, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from contracts.features import MAX_CANDIDATES, FeatureGroup, FeatureSpec
from training.model.layers import EncoderLayer, block_where
from training.model.pair_vectors import PairVectors
from training.settings import ModelSettings


class GroupEmbedding(nn.Module):
    """The categorical and dense columns of one feature group as one vector of D."""

    def __init__(self, group: FeatureGroup, width: int) -> None:
        super().__init__()
        tables = [nn.Embedding(feature.rows, feature.width) for feature in group.categorical]
        for table in tables:
            nn.init.normal_(table.weight, std=0.05)
        self.tables = nn.ModuleList(tables)
        inputs = sum(feature.width for feature in group.categorical) + group.dense_columns
        self.project = nn.Linear(inputs, width)

    def forward(self, cat: Tensor, dense: Tensor) -> Tensor:
        """cat int32 [..., C], dense float32 [..., E] -> [..., D]."""
        parts = [dense]
        for index, table in enumerate(self.tables):
            parts.append(table(cat[..., index]))
        return self.project(torch.cat(parts, dim=-1))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Bidirectional Transformer over X + P (paper, Gen-Reranker 1).

    The user is folded into every candidate: x_i = W [gelu(a_i + u); a_i * u], where a_i and u are
    the projected item and user features. The product lets tastes meet items before attention.
    """

    def __init__(self, spec: FeatureSpec, settings: ModelSettings) -> None:
        super().__init__()
        width = settings.width
        self.item = GroupEmbedding(spec.item, width)
        self.user = GroupEmbedding(spec.user, width)
        self.fold = nn.Linear(2 * width, width)
        self.position = nn.Embedding(MAX_CANDIDATES, width)
        nn.init.normal_(self.position.weight, std=0.02)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(
            EncoderLayer(width, settings.attention_heads, settings.feed_forward, settings.dropout)
            for _ in range(settings.encoder_layers)
        )
        self.pair = PairVectors(spec.item, settings.pairwise) if settings.pairwise else None
        self.has_prior = settings.prior == "position"
        slope = settings.prior_slope if self.has_prior else 0.0
        prior = -slope * torch.log1p(torch.arange(MAX_CANDIDATES, dtype=torch.float32))
        self.position_prior = nn.Parameter(prior, requires_grad=self.has_prior)

    def forward(
        self,
        item_cat: Tensor,
        item_dense: Tensor,
        user_cat: Tensor,
        user_dense: Tensor,
        count: Tensor,
        position: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Encode padded requests.

        Args:
            item_cat [B, M, C], item_dense [B, M, E], user_cat [B, C'], user_dense [B, E']: as
                contracts.encoding.EncodedBatch.
            count: int [B] or [B, 1], how many candidates are real.
            position: int [B, M], positions of the previous stage from 0; by default the index.

        Returns:
            z_BMD, and prior_BM: the learned prior, BLOCKED at padded candidates. With a pairwise
            term of rank R, Z is 2 R wider than D; Decoder.split takes it apart.
        """
        place = torch.arange(item_cat.size(1), device=item_cat.device)
        if position is None:
            position = place.unsqueeze(0)
        padded_BM = place.unsqueeze(0) >= count.view(-1, 1)
        prior_BM = block_where(self.position_prior[position], padded_BM)
        a = self.item(item_cat, item_dense)
        u = self.user(user_cat, user_dense).unsqueeze(1)
        x_BMD = self.fold(torch.cat([gelu(a + u), a * u], dim=-1))
        z_BMD = self.norm(x_BMD + self.position(position))
        mask = block_where(torch.zeros_like(prior_BM), padded_BM)
        mask = mask.unsqueeze(1).unsqueeze(1)
        for layer in self.layers:
            z_BMD = layer(z_BMD, mask)
        if self.pair is not None:
            z_BMD = torch.cat([z_BMD, self.pair(item_cat)], dim=-1)
        return z_BMD, prior_BM
