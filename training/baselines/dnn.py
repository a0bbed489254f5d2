"""DNN: a pointwise ranker, each candidate scored by itself.

Covington et al., "Deep Neural Networks for YouTube Recommendations", RecSys 2016: embedded
features, hidden layers of rectified linear units, one logit.

Axes: B batch, M padded candidates.
"""

from __future__ import annotations

from torch import Tensor, nn

from contracts.features import FeatureSpec
from training.baselines.candidates import CandidateInput
from training.baselines.choosing import best_first
from training.settings import ModelSettings


class Dnn(nn.Module):
    """``encoder_layers`` hidden layers of ``feed_forward * width``; knows no other candidate."""

    def __init__(self, spec: FeatureSpec, settings: ModelSettings) -> None:
        super().__init__()
        self.list_size = spec.list_size
        self.input = CandidateInput(spec, settings.width, positions=0)
        hidden = settings.feed_forward * settings.width
        layers: list[nn.Module] = []
        for index in range(settings.encoder_layers):
            layers += [nn.Linear(hidden if index else settings.width, hidden), nn.ReLU()]
            if settings.dropout > 0:
                layers.append(nn.Dropout(settings.dropout))
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, 1))

    def forward(
        self,
        item_cat: Tensor,
        item_dense: Tensor,
        user_cat: Tensor,
        user_dense: Tensor,
        count: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Lists as the package says."""
        scores_BM, blocked_BM = self.scores(item_cat, item_dense, user_cat, user_dense, count)
        return best_first(scores_BM, blocked_BM, self.list_size)

    def scores(
        self,
        item_cat: Tensor,
        item_dense: Tensor,
        user_cat: Tensor,
        user_dense: Tensor,
        count: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """One logit for each candidate [B, M], and the additive mask [B, M]."""
        x_BMD, blocked_BM = self.input(item_cat, item_dense, user_cat, user_dense, count)
        return self.layers(x_BMD).squeeze(-1), blocked_BM
