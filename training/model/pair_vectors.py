"""Vectors of the pairwise term: what an item, once shown, does to the candidates after it.

Axes: B batch, M candidates, C categorical columns, R rank of the term.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from contracts.features import FeatureGroup
from contracts.reading import ContractError
from training.settings import PAIR_WIDTH


class PairVectors(nn.Module):
    """Vectors e and f of the pairwise term: e_y . f_j is what y, once shown, does to j.

    e is a table of random directions, nearly at right angles to one another. f is the same table
    times a scale, from 0 on, so that "how much does a repeat hurt" is one number to learn; and
    beside it a table of its own, also from 0 on, for what a value does to the others.
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
            nn.init.zeros_(after.weight)  # type: ignore[arg-type]
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
            f.append(after(values) + e[index] * self.scale[index] * self.gain)
        return torch.cat(e + f, dim=-1)
