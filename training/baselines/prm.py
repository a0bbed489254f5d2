"""PRM: a Transformer encoder over the given list, then one score for each candidate.

Pei et al., "Personalized Re-ranking for Recommendation", RecSys 2019. Its personalised vectors come
from a model of their own; here the user is folded into each candidate, as in Gen-Reranker.

Axes: B batch, M padded candidates, D width.
"""

from __future__ import annotations

from torch import Tensor, nn

from contracts.features import MAX_CANDIDATES, FeatureSpec
from training.baselines.candidates import CandidateInput
from training.baselines.choosing import best_first
from training.model.layers import EncoderLayer
from training.settings import ModelSettings


class Prm(nn.Module):
    """``encoder_layers`` blocks over X + P; the list is the candidates by score."""

    def __init__(
        self, spec: FeatureSpec, settings: ModelSettings, positions: int = MAX_CANDIDATES
    ) -> None:
        super().__init__()
        self.list_size = spec.list_size
        self.input = CandidateInput(spec, settings.width, positions)
        self.layers = nn.ModuleList(
            EncoderLayer(
                settings.width, settings.attention_heads, settings.feed_forward, settings.dropout
            )
            for _ in range(settings.encoder_layers)
        )
        self.score = nn.Linear(settings.width, 1)

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
        mask = blocked_BM.unsqueeze(1).unsqueeze(1)
        for layer in self.layers:
            x_BMD = layer(x_BMD, mask)
        return self.score(x_BMD).squeeze(-1), blocked_BM
