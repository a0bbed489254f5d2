"""Candidates and user as vectors: the input layer that all networks here share.

Axes: B batch, M padded candidates, C categorical columns, E dense columns, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from contracts.features import MAX_CANDIDATES, FeatureSpec
from training.model.encoder import GroupEmbedding
from training.model.layers import block_where


class CandidateInput(nn.Module):
    """What Gen-Reranker's encoder does before its first block.

    Args:
        positions: rows of the table of given positions; 0 leaves the given order out.
    """

    def __init__(self, spec: FeatureSpec, width: int, positions: int = MAX_CANDIDATES) -> None:
        super().__init__()
        self.item = GroupEmbedding(spec.item, width)
        self.user = GroupEmbedding(spec.user, width)
        self.fold = nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width)
        self.positions = positions
        self.position = nn.Embedding(max(1, positions), width) if positions else nn.Identity()
        if isinstance(self.position, nn.Embedding):
            nn.init.normal_(self.position.weight, std=0.02)
        for name, group in (("item_rows", spec.item), ("user_rows", spec.user)):
            rows = [feature.rows for feature in group.categorical] or [1]
            self.register_buffer(name, torch.tensor(rows, dtype=torch.int32), persistent=False)

    def forward(
        self,
        item_cat: Tensor,
        item_dense: Tensor,
        user_cat: Tensor,
        user_dense: Tensor,
        count: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Embed padded requests.

        Returns:
            x_BMD, and the additive mask [B, M]: 0 at real candidates, BLOCKED at padded ones.

        Raises:
            ValueError: more candidates than positions.
        """
        m = item_cat.size(1)
        place = torch.arange(m, device=item_cat.device)
        items, users = _within(item_cat, self.item_rows), _within(user_cat, self.user_rows)  # type: ignore[arg-type]
        a, u = self.item(items, item_dense), self.user(users, user_dense).unsqueeze(1)
        x_BMD = self.fold(torch.cat([gelu(a + u), a * u], dim=-1))
        if self.positions > 0:
            if m > self.positions:
                raise ValueError("more candidates than positions")
            x_BMD = x_BMD + self.position(place)
        padded_BM = place.unsqueeze(0) >= count.view(-1, 1)
        blocked_BM = block_where(torch.zeros_like(padded_BM, dtype=x_BMD.dtype), padded_BM)
        return self.norm(x_BMD), blocked_BM


def _within(cat: Tensor, rows: Tensor) -> Tensor:
    """A category beyond its table counts as missing (row 0)."""
    return cat.masked_fill((cat < 0) | (cat >= rows), 0)
