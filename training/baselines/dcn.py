"""DCN v2: explicit crosses of features beside a deep network; pointwise.

Wang et al., "DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale Learning to
Rank Systems", WWW 2021. Crosses x_{l+1} = x_0 * (W x_l + b) + x_l with full matrices, in parallel
with hidden layers of rectified linear units; one logit of both. Mixtures of low-rank experts, which
the paper adds for the sake of serving cost, are left out.

Axes: B batch, M padded candidates.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from contracts.features import FeatureSpec
from training.baselines.choosing import best_first
from training.baselines.fields import Fields
from training.model.layers import block_where


class Dcn(nn.Module):
    """``crosses`` cross layers beside ``layers`` hidden ones of ``hidden`` units."""

    def __init__(
        self, spec: FeatureSpec, field: int, crosses: int, layers: int, hidden: int, dropout: float
    ) -> None:
        super().__init__()
        self.list_size = spec.list_size
        self.item = Fields(spec.item, field)
        self.user = Fields(spec.user, field)
        size = field * (self.item.count + self.user.count)
        self.crosses = nn.ModuleList(nn.Linear(size, size) for _ in range(crosses))
        deep: list[nn.Module] = []
        for index in range(layers):
            deep += [nn.Linear(hidden if index else size, hidden), nn.ReLU(), nn.Dropout(dropout)]
        self.deep = nn.Sequential(*deep)
        self.out = nn.Linear(size + hidden, 1)

    def scores(
        self,
        item_cat: Tensor,
        item_dense: Tensor,
        user_cat: Tensor,
        user_dense: Tensor,
        count: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """One logit for each candidate [B, M], and the additive mask [B, M]."""
        item = self.item(item_cat, item_dense).flatten(2)
        user = self.user(user_cat, user_dense).flatten(1)
        x_0 = torch.cat([item, user.unsqueeze(1).expand(-1, item.size(1), -1)], dim=-1)
        x = x_0
        for cross in self.crosses:
            x = x_0 * cross(x) + x
        logits = self.out(torch.cat([x, self.deep(x_0)], dim=-1)).squeeze(-1)
        place = torch.arange(item.size(1), device=item.device)
        padded = place.unsqueeze(0) >= count.view(-1, 1)
        return logits, block_where(torch.zeros_like(logits), padded)

    def forward(
        self,
        item_cat: Tensor,
        item_dense: Tensor,
        user_cat: Tensor,
        user_dense: Tensor,
        count: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Lists as the package says."""
        scores, blocked = self.scores(item_cat, item_dense, user_cat, user_dense, count)
        return best_first(scores, blocked, self.list_size)
