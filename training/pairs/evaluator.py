"""The listwise evaluator: expected utility of each position of a list. Training only.

A small causal Transformer over the list, with position in mind: what an item earns may depend on
where it stands and on what stands before it. It labels the policy's own lists (policy.py) and, as
a second copy fitted on a third of the users, judges them. It never serves.

Axes: B slates, N list positions, L lists a slate, M candidates, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, gelu, mse_loss

from contracts.features import MAX_LIST, OUT_OF_VOCABULARY, FeatureGroup, FeatureSpec
from training.data.arrays import SlateArrays
from training.data.batch import Batch
from training.model.encoder import GroupEmbedding
from training.model.layers import EncoderLayer, block_where, causal_mask
from training.pairs.kinship import WINDOWS, Kinship
from training.pairs.other_kinds import OtherKinds
from training.pairs.rates import Rates
from training.settings import EvaluatorSettings


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
        # What identities hold, counted: labels are too few to learn it from.
        self.rates = Rates(spec) if settings.rates else None
        columns = 0 if self.rates is None else self.rates.columns
        self.rated = (
            nn.Sequential(nn.Linear(columns, width), nn.GELU(), nn.Linear(width, width))
            if columns
            else None
        )
        if self.rated is not None:  # a rate that never varies while fitting is to stay silent
            nn.init.zeros_(self.rated[0].weight)  # type: ignore[arg-type]
        self.together = nn.ModuleList(
            EncoderLayer(width, settings.attention_heads, 2, settings.dropout)
            for _ in range(settings.candidate_layers)
        )
        self.together_norm = nn.LayerNorm(width) if settings.candidate_layers else nn.Identity()
        self.position = nn.Embedding(max_list, width)
        nn.init.normal_(self.position.weight, std=0.02)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(
            EncoderLayer(width, settings.attention_heads, 2, settings.dropout)
            for _ in range(settings.layers)
        )
        # What stood just before an item and is kin to it: what a small Transformer would need many
        # lists to learn by itself.
        self.kinship = Kinship(spec.item, self.item_id)
        self.repeats = nn.Linear(len(WINDOWS) * self.kinship.columns, width)
        # The item alone reaches the output too: the Transformer then learns what the list adds.
        self.own = nn.Linear(width, 1)
        self.context = nn.Linear(width, 1)
        self.place = nn.Embedding(max_list, 1)
        nn.init.zeros_(self.place.weight)
        self.other_kinds = settings.other_kinds
        self.others = OtherKinds(spec, 2 * width) if settings.other_kinds > 0 else None

    def count(self, train: SlateArrays) -> None:
        """Count the feedback of the slates that it is about to be fitted on (``Rates.add``)."""
        if self.rates is not None:
            self.rates.add(train)

    def items(self, batch: Batch) -> Tensor:
        """Representations [B, M, D] of all candidates, computed once for all lists.

        Each alone, unless ``candidate_layers`` let them see one another.
        """
        a = self.item(self._hidden(batch.item_cat, self.item_id), batch.item_dense)
        u = self.user(self._hidden(batch.user_cat, self.user_id), batch.user_dense).unsqueeze(1)
        folded: Tensor = self.fold(torch.cat([gelu(a + u), a * u], dim=-1))
        if self.rates is not None and self.rated is not None:
            folded = folded + self.rated(self.rates(batch.item_cat, batch.user_cat, batch.row))
        x_BMD: Tensor = self.together_norm(folded)
        padded_BM = self._places(batch.item_cat) >= batch.count.unsqueeze(1)
        blocked_BM = block_where(torch.zeros_like(padded_BM, dtype=x_BMD.dtype), padded_BM)
        for layer in self.together:
            x_BMD = layer(x_BMD, blocked_BM.unsqueeze(1).unsqueeze(1))
        return x_BMD

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
        own_BND, x_BND = self._read(items_BMD, item_cat_BMC, lists_BN)
        return self.leave(own_BND, x_BND, self._places(lists_BN))

    def _read(
        self, items_BMD: Tensor, item_cat_BMC: Tensor, lists_BN: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The items of lists alone, and the Transformer's outputs, each [B, N, D]."""
        index = lists_BN.clamp(min=0).unsqueeze(-1).expand(-1, -1, items_BMD.size(-1))
        own_BND = items_BMD.gather(1, index)
        kin = self.kinship.of_lists(item_cat_BMC, lists_BN)
        x_BND = self.enter(own_BND, self._places(lists_BN), kin)
        mask = causal_mask(0, lists_BN.size(1), lists_BN.device)
        for layer in self.layers:
            x_BND = layer(x_BND, mask)
        return own_BND, x_BND

    @staticmethod
    def _places(rows: Tensor) -> Tensor:
        """0, 1, ... along the second axis."""
        return torch.arange(rows.size(1), device=rows.device)

    def enter(self, own_BND: Tensor, place: Tensor, repeats: Tensor) -> Tensor:
        """Inputs of the Transformer: the items, where they stand, and what they repeat."""
        x: Tensor = self.norm(own_BND + self.position(place) + self.repeats(repeats))
        return x

    def leave(self, own_BND: Tensor, x_BND: Tensor, place: Tensor) -> Tensor:
        """Logit or value [B, N] from the items alone and from the Transformer's outputs."""
        logit: Tensor = self.own(own_BND) + self.context(x_BND) + self.place(place)
        return logit.squeeze(-1)

    def loss(self, batch: Batch) -> Tensor:
        """Mean loss over shown items: log-loss (binary) or squared error.

        While fitting, with ``other_kinds`` times that of the other kinds of feedback.
        """
        own_BND, x_BND = self._read(self.items(batch), batch.item_cat, batch.exposed)
        predicted = self.leave(own_BND, x_BND, self._places(batch.exposed))
        shown = batch.exposed >= 0
        loss = item_losses(predicted, batch, self.binary)[shown].mean()
        if self.others is not None and self.training:
            read = torch.cat([own_BND, x_BND], dim=-1)[shown]
            loss = loss + self.other_kinds * self.others.loss(read, batch.feedback[shown])
        return loss

    @torch.no_grad()
    def expected(self, batch: Batch, lists_BLN: Tensor) -> Tensor:
        """Expected utility of each position of several lists a request [B, L, N]."""
        batch_size, lists, length = lists_BLN.shape
        items = self.items(batch).repeat_interleave(lists, dim=0)
        categories = batch.item_cat.repeat_interleave(lists, dim=0)
        predicted = self(items, categories, lists_BLN.reshape(batch_size * lists, length))
        predicted = predicted.sigmoid() if self.binary else predicted
        return predicted.view(batch_size, lists, length)  # type: ignore[no-any-return]

    def value(self, batch: Batch, lists_BLN: Tensor) -> Tensor:
        """Value of whole lists [B, L], as ``list_values`` sums it up."""
        return list_values(self.expected(batch, lists_BLN), lists_BLN, self.discounted)


def list_values(expected_BLN: Tensor, lists_BLN: Tensor, discounted: bool) -> Tensor:
    """The sum of expected utilities over the positions of lists [B, L].

    With ``discounted`` each position counts 1 / log2(k + 1), as in DCG: for logs whose positions
    are not real ones, where the sum would be the same in any order.
    """
    expected = expected_BLN.masked_fill(lists_BLN < 0, 0.0)
    if discounted:
        place = torch.arange(lists_BLN.size(2), device=lists_BLN.device)
        expected = expected / torch.log2(place + 2.0)
    return expected.sum(2)


def identity_column(group: FeatureGroup, name: str) -> int | None:
    """Column of the feature that is the identity itself; None where there is none."""
    names = [feature.name for feature in group.categorical]
    return names.index(name) if name in names else None


def item_losses(predicted_BN: Tensor, batch: Batch, binary: bool) -> Tensor:
    """Log-loss or squared error of each position [B, N]; meaningless where nothing was shown."""
    if binary:
        return binary_cross_entropy_with_logits(predicted_BN, batch.utility, reduction="none")
    return mse_loss(predicted_BN, batch.utility, reduction="none")
