"""Each feature as a vector of its own, for models that cross features or attend by field."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from contracts.features import FeatureGroup


class Fields(nn.Module):
    """The features of one side as F vectors: one for each category, one for all numbers."""

    def __init__(self, group: FeatureGroup, width: int) -> None:
        super().__init__()
        self.rows = [feature.rows for feature in group.categorical]
        self.tables = nn.ModuleList(nn.Embedding(rows, width) for rows in self.rows)
        for table in self.tables:
            nn.init.normal_(table.weight, std=0.05)  # type: ignore[arg-type]
        self.dense = nn.Linear(group.dense_columns, width)

    @property
    def count(self) -> int:
        """F."""
        return len(self.rows) + 1

    def forward(self, cat: Tensor, dense: Tensor) -> Tensor:
        """cat int32 [..., C], dense [..., E] -> [..., F, width]. Unknown rows count as missing."""
        found = [self.dense(dense)]
        for column, (table, rows) in enumerate(zip(self.tables, self.rows)):
            value = cat[..., column]
            found.append(table(value.masked_fill((value < 0) | (value >= rows), 0)))
        return torch.stack(found, dim=-2)
