"""What else users do with an item, learned beside the utility (multi-task). While fitting only.

Axes: S shown items, D width, K feedback kinds.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from contracts.features import FeatureSpec


class OtherKinds(nn.Module):
    """Predicts every feedback kind but the utility from what an evaluator has read."""

    def __init__(self, spec: FeatureSpec, width: int) -> None:
        super().__init__()
        kinds = list(enumerate(spec.feedback))
        self.columns = [column for column, one in kinds if one.kind != spec.utility]
        self.binary = [spec.feedback[column].type == "binary" for column in self.columns]
        self.out = nn.Linear(width, len(self.columns))

    def loss(self, read_SD: Tensor, feedback_SK: Tensor) -> Tensor:
        """Sum over the kinds of the mean log-loss, or of the unexplained share of log(1 + x)."""
        loss = read_SD.new_zeros(())
        for predicted, column, binary in zip(self.out(read_SD).T, self.columns, self.binary):
            if binary:
                given = (feedback_SK[:, column] > 0).float()
                loss = loss + binary_cross_entropy_with_logits(predicted, given)
            else:
                given = torch.log1p(feedback_SK[:, column].clamp(min=0))
                spread = given.var(unbiased=False).clamp(min=1e-6)
                loss = loss + (predicted - given).square().mean() / spread
        return loss
