"""How items of a list go together, from their categories: a part of the listwise evaluator.

Axes: B slates, N later items, K earlier items, C categorical columns, W windows, M candidates.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from contracts.features import FeatureGroup

#: How far back an item's kin is looked for, in list positions.
WINDOWS = (1, 2, 4, 8)
#: Width of a value's vectors in the learned part of it.
KIN_WIDTH = 8


class Kinship(nn.Module):
    """How an item's categories go with those of the items just before it.

    For each categorical feature: whether the values are equal, and, except for the identity, a
    learned product of the two values' vectors (a lens goes with a camera). Either is averaged over
    the last w items, for each w of ``WINDOWS``.
    """

    def __init__(self, group: FeatureGroup, identity: int | None) -> None:
        super().__init__()
        self.learned = [c for c in range(group.categorical_columns) if c != identity]
        rows = [group.categorical[column].rows for column in self.learned]
        self.before = nn.ModuleList(nn.Embedding(count, KIN_WIDTH) for count in rows)
        self.after = nn.ModuleList(nn.Embedding(count, KIN_WIDTH) for count in rows)
        for before, after in zip(self.before, self.after):
            nn.init.normal_(before.weight)  # type: ignore[arg-type]
            nn.init.zeros_(after.weight)  # type: ignore[arg-type]
        self.columns = group.categorical_columns + len(self.learned)

    def forward(self, earlier_BKC: Tensor, later_BNC: Tensor) -> Tensor:
        """Kinship of later items to earlier ones [B, N, K, columns]."""
        same = (later_BNC.unsqueeze(2) == earlier_BKC.unsqueeze(1)).float()
        if not self.learned:
            return same
        products = [
            after(later_BNC[..., column]) @ before(earlier_BKC[..., column]).transpose(1, 2)
            for column, before, after in zip(self.learned, self.before, self.after)
        ]
        return torch.cat([same, torch.stack(products, dim=-1)], dim=-1)

    def of_lists(self, item_cat_BMC: Tensor, lists_BN: Tensor) -> Tensor:
        """For each position of a list, over the items before it [B, N, columns * W]."""
        index = lists_BN.clamp(min=0).unsqueeze(-1).expand(-1, -1, item_cat_BMC.size(-1))
        rows_BNC = item_cat_BMC.gather(1, index)
        place = torch.arange(lists_BN.size(1), device=lists_BN.device)
        return window_shares(self(rows_BNC, rows_BNC), place.unsqueeze(1) - place.unsqueeze(0))


def window_shares(same_BNKC: Tensor, back_NK: Tensor) -> Tensor:
    """Mean kinship over items ``back_NK`` positions before, by window [B, N, columns * W]."""
    shares = []
    for window in WINDOWS:
        seen = ((back_NK > 0) & (back_NK <= window)).float() / window
        shares.append(torch.einsum("bnkc,nk->bnc", same_BNKC, seen))
    return torch.cat(shares, dim=-1)
