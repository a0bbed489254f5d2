"""The listwise evaluator: expected utility of each position of a list. Training only.

A small causal Transformer over the list, with position in mind: what an item earns may depend on
where it stands and on what stands before it. It labels the policy's own lists (policy.py) and, as
a second copy fitted on other users, judges them. It never serves.

Axes: B slates, N list positions, L lists a slate, M candidates, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, gelu, mse_loss

from contracts.features import MAX_LIST, OUT_OF_VOCABULARY, FeatureGroup, FeatureSpec
from training.data.batch import Batch
from training.model.encoder import GroupEmbedding
from training.model.layers import EncoderLayer, causal_mask
from training.settings import EvaluatorSettings

#: How far back an item's like is looked for, in list positions.
WINDOWS = (1, 2, 4, 8)


class Evaluator(nn.Module):
    """Predicts U of each shown item from the items up to it, their positions and the user."""

    def __init__(
        self, spec: FeatureSpec, settings: EvaluatorSettings, max_list: int = MAX_LIST
    ) -> None:
        super().__init__()
        width = settings.width
        self.binary = spec.utility_kind.type == "binary"
        self.discounted = settings.discount == "log"
        self.id_dropout = settings.id_dropout
        self.item_id = identity_column(spec.item, "item")
        self.user_id = identity_column(spec.user, "user")
        self.item = GroupEmbedding(spec.item, width)
        self.user = GroupEmbedding(spec.user, width)
        self.fold = nn.Linear(2 * width, width)
        self.position = nn.Embedding(max_list, width)
        nn.init.normal_(self.position.weight, std=0.02)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(
            EncoderLayer(width, settings.attention_heads, 2, settings.dropout)
            for _ in range(settings.layers)
        )
        # How often an item's categories stood just before it: what a small Transformer would need
        # many lists to learn by itself.
        self.repeats = nn.Linear(len(WINDOWS) * spec.item.categorical_columns, width)
        # The item alone reaches the output too: the Transformer then learns what the list adds.
        self.own = nn.Linear(width, 1)
        self.context = nn.Linear(width, 1)
        self.place = nn.Embedding(max_list, 1)
        nn.init.zeros_(self.place.weight)

    def items(self, batch: Batch) -> Tensor:
        """Representations [B, M, D] of all candidates alone, computed once for all lists."""
        a = self.item(self._hidden(batch.item_cat, self.item_id), batch.item_dense)
        u = self.user(self._hidden(batch.user_cat, self.user_id), batch.user_dense).unsqueeze(1)
        folded: Tensor = self.fold(torch.cat([gelu(a + u), a * u], dim=-1))
        return folded

    def _hidden(self, cat: Tensor, column: int | None) -> Tensor:
        """While fitting, categories [..., C] with some identities out of vocabulary."""
        if column is None or not self.training or self.id_dropout == 0:
            return cat
        forgotten = torch.rand(cat.shape[:-1], device=cat.device) < self.id_dropout
        cat = cat.clone()
        cat[..., column] = cat[..., column].masked_fill(forgotten, OUT_OF_VOCABULARY)
        return cat

    def forward(self, items_BMD: Tensor, item_cat_BMC: Tensor, lists_BN: Tensor) -> Tensor:
        """Logit (binary utility) or value of each position [B, N]."""
        index = lists_BN.clamp(min=0).unsqueeze(-1).expand(-1, -1, items_BMD.size(-1))
        own_BND = items_BMD.gather(1, index)
        place = torch.arange(lists_BN.size(1), device=lists_BN.device)
        x_BND = self.enter(own_BND, place, repeated_categories(item_cat_BMC, lists_BN))
        mask = causal_mask(0, lists_BN.size(1), lists_BN.device)
        for layer in self.layers:
            x_BND = layer(x_BND, mask)
        return self.leave(own_BND, x_BND, place)

    def enter(self, own_BND: Tensor, place: Tensor, repeats: Tensor) -> Tensor:
        """Inputs of the Transformer: the items, where they stand, and what they repeat."""
        x: Tensor = self.norm(own_BND + self.position(place) + self.repeats(repeats))
        return x

    def leave(self, own_BND: Tensor, x_BND: Tensor, place: Tensor) -> Tensor:
        """Logit or value [B, N] from the items alone and from the Transformer's outputs."""
        logit: Tensor = self.own(own_BND) + self.context(x_BND) + self.place(place)
        return logit.squeeze(-1)

    def loss(self, batch: Batch) -> Tensor:
        """Mean loss over shown items: log-loss (binary) or squared error."""
        predicted = self(self.items(batch), batch.item_cat, batch.exposed)
        return item_losses(predicted, batch, self.binary)[batch.exposed >= 0].mean()

    @torch.no_grad()
    def value(self, batch: Batch, lists_BLN: Tensor) -> Tensor:
        """Value of whole lists [B, L]: the sum of expected utilities over their positions.

        With ``discounted`` each position counts 1 / log2(k + 1), as in DCG: for logs whose
        positions are not real ones, where the sum would be the same in any order.
        """
        batch_size, lists, length = lists_BLN.shape
        items = self.items(batch).repeat_interleave(lists, dim=0)
        categories = batch.item_cat.repeat_interleave(lists, dim=0)
        flat = lists_BLN.reshape(batch_size * lists, length)
        predicted = self(items, categories, flat)
        predicted = predicted.sigmoid() if self.binary else predicted
        predicted = predicted.masked_fill(flat < 0, 0.0)
        if self.discounted:
            place = torch.arange(length, device=flat.device)
            predicted = predicted / torch.log2(place + 2.0)
        total: Tensor = predicted.sum(1)
        return total.view(batch_size, lists)


def identity_column(group: FeatureGroup, name: str) -> int | None:
    """Column of the feature that is the identity itself; None where there is none."""
    names = [feature.name for feature in group.categorical]
    return names.index(name) if name in names else None


def repeated_categories(item_cat_BMC: Tensor, lists_BN: Tensor) -> Tensor:
    """Share of the last w items with the same value, for each feature and window [B, N, C * W]."""
    index = lists_BN.clamp(min=0).unsqueeze(-1).expand(-1, -1, item_cat_BMC.size(-1))
    rows_BNC = item_cat_BMC.gather(1, index)
    same = (rows_BNC.unsqueeze(2) == rows_BNC.unsqueeze(1)).float()  # [B, N, N, C]
    place = torch.arange(lists_BN.size(1), device=lists_BN.device)
    return window_shares(same, place.unsqueeze(1) - place.unsqueeze(0))


def window_shares(same_BNKC: Tensor, back_NK: Tensor) -> Tensor:
    """Share of same values among items ``back_NK`` positions before, by window [B, N, C * W]."""
    shares = []
    for window in WINDOWS:
        seen = ((back_NK > 0) & (back_NK <= window)).float() / window
        shares.append(torch.einsum("bnkc,nk->bnc", same_BNKC, seen))
    return torch.cat(shares, dim=-1)


def item_losses(predicted_BN: Tensor, batch: Batch, binary: bool) -> Tensor:
    """Log-loss or squared error of each position [B, N]; meaningless where nothing was shown."""
    if binary:
        return binary_cross_entropy_with_logits(predicted_BN, batch.utility, reduction="none")
    return mse_loss(predicted_BN, batch.utility, reduction="none")
