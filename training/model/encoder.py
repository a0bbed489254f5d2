"""The encoder of Gen-Reranker: candidates and user to Z and the prior of the matching logits.

Axes: B batch, M padded candidates, C categorical columns, E dense columns, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from contracts.features import MAX_CANDIDATES, FeatureGroup, FeatureSpec
from contracts.reading import ContractError
from training.model.layers import EncoderLayer, block_where
from training.settings import PAIR_WIDTH, ModelSettings


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


class PairVectors(nn.Module):
    """Vectors e and f of the pairwise term: e_y . f_j is what y, once shown, does to j.

    Both tables of a feature begin as the same random directions, so that e . f is nearly 1 for
    equal values and nearly 0 for others, and a scale of 0 in front: "how much does a repeat hurt"
    is then one number to learn, and what else there is between values comes after.
    """

    def __init__(self, group: FeatureGroup, names: tuple[str, ...]) -> None:
        super().__init__()
        known = [feature.name for feature in group.categorical]
        for name in names:
            if name not in known:
                raise ContractError(f"pairwise names {name}; allowed: {', '.join(known)}")
        self.columns = [known.index(name) for name in names]
        rows = [group.categorical[column].rows for column in self.columns]
        self.before = nn.ModuleList(nn.Embedding(count, PAIR_WIDTH) for count in rows)
        self.after = nn.ModuleList(nn.Embedding(count, PAIR_WIDTH) for count in rows)
        for before, after in zip(self.before, self.after):
            nn.init.normal_(before.weight)  # type: ignore[arg-type]
            after.load_state_dict(before.state_dict())
        self.scale = nn.Parameter(torch.zeros(len(names)))
        # A step of the optimiser moves the scale by ten times as much as a weight.
        self.gain = 10.0 / PAIR_WIDTH**0.5

    def forward(self, item_cat: Tensor) -> Tensor:
        """int32 [B, M, C] -> e and f side by side [B, M, 2 R]."""
        e: list[Tensor] = []
        f: list[Tensor] = []
        for index, (before, after) in enumerate(zip(self.before, self.after)):
            values = item_cat[..., self.columns[index]]
            e.append(before(values))
            f.append(after(values) * self.scale[index] * self.gain)
        return torch.cat(e + f, dim=-1)


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
