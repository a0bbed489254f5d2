"""A batch of slates as tensors, and the slates of a folder as arrays.

Axes: B batch, M padded candidates, N padded list positions, K feedback kinds.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Slates as tensors.

    Attributes:
        item_cat, item_dense, user_cat, user_dense, count: as contracts.encoding.EncodedBatch.
        exposed: int64 [B, N], candidate indices in exposure order, -1 after the end.
        utility: float32 [B, N], U of Eq. 7 for each exposed item (binary 0/1, or standardised to
            [0, 1] where it is continuous); 0 after the end.
        feedback: float32 [B, N, K], every kind, raw.
        row: int64 [B], the slate's row in its dataset.
    """

    item_cat: Tensor
    item_dense: Tensor
    user_cat: Tensor
    user_dense: Tensor
    count: Tensor
    exposed: Tensor
    utility: Tensor
    feedback: Tensor
    row: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    @property
    def size(self) -> int:
        return self.count.size(0)

    @property
    def candidates(self) -> int:
        """M."""
        return self.item_cat.size(1)

    def given(self, length: int) -> Tensor:
        """The first ``length`` candidates of the given order [B, length], -1 beyond the count."""
        order = torch.arange(length, device=self.count.device).expand(self.size, length)
        return order.masked_fill(order >= self.count.unsqueeze(1), -1)
