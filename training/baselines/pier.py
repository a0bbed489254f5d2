"""PIER: permutations chosen by the user's interest, then an evaluator that sees whole lists.

Shi et al., "PIER: Permutation-Level Interest-Based End-to-End Re-ranking Framework in E-commerce",
KDD 2023. FPSM picks the K permutations whose SimHash is nearest to the hash of the user's interest;
OCPM predicts the click of each item from the whole permutation, attending over the list within
each feature ("omnidirectional"); both are trained together with a comparative loss.

Simplified:
- The paper enumerates the permutations of a few items. With m = 30 and n = 10 that is impossible,
  so FPSM's pool is drawn: Plackett-Luce samples over a pointwise head of the same network, its own
  best order, and the given order.
- The paper's user interest is made of the permutations that the user clicked before; slates hold no
  such history, so it is a projection of the user's features and of the mean candidate.
- The comparative loss: of two drawn lists the one with the higher predicted sum of clicks must be
  nearer to the user's interest.

Axes: B requests, M candidates, P pool, K permutations kept, N list positions, F fields, D width.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from contracts.features import MAX_LIST, FeatureSpec
from training.baselines.fields import Fields
from training.baselines.fitting import (
    FittedNetwork,
    NetworkSettings,
    check_spec,
    device,
    discounted,
    fit_network,
    mean_loss,
    shown_loss,
)
from training.baselines.interface import OnEpoch
from training.data.arrays import SlateArrays
from training.data.batch import Batch
from training.model.layers import BLOCKED, EncoderLayer
from training.pairs.base import random_keys


class PierSettings(NetworkSettings, kw_only=True, frozen=True):
    """Settings of PIER.

    Attributes:
        width: of each field's vector.
        pool, keep: P and K.
        bits: of the SimHash.
        temperature: of the draws of the pool, over standardised scores.
        comparative: weight of the comparative loss.
        discount: of the sum over a list, as in ContextSettings.
    """

    SEARCH: ClassVar[dict[str, tuple[Any, ...]]] = {
        "optim.learning_rate": (3e-4, 1e-3, 3e-3),
        "layers": (1, 2),
        "temperature": (0.3, 0.5, 1.0),
        "pool": (100, 300),
        "keep": (10, 50),
    }

    width: int = 16
    layers: int = 1
    pool: int = 100
    keep: int = 50
    bits: int = 32
    temperature: float = 0.5
    comparative: float = 0.1
    discount: str = "auto"

    def __post_init__(self) -> None:
        if not 1 <= self.keep <= self.pool:
            raise ValueError(f"keep is {self.keep}; allowed: 1 to pool ({self.pool})")
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}; allowed: above 0")


class Pier(nn.Module):
    """FPSM and OCPM over shared fields."""

    def __init__(self, spec: FeatureSpec, settings: PierSettings, discounted: bool = False) -> None:
        super().__init__()
        width = settings.width
        self.list_size = spec.list_size
        self.settings = settings
        self.discounted = discounted
        self.item = Fields(spec.item, width)
        self.user = Fields(spec.user, width)
        count = self.item.count
        size, user_size = count * width, self.user.count * width
        # FPSM: a pointwise score to draw by, and lists and users in one space.
        self.own = nn.Sequential(
            nn.Linear(size + user_size, 2 * size), nn.ReLU(), nn.Linear(2 * size, 1)
        )
        self.place_weight = nn.Embedding(MAX_LIST, 1)
        self.interest = nn.Linear(user_size + size, size)
        self.register_buffer("planes", torch.randn(size, settings.bits))
        # OCPM: a stack of attention blocks for each field.
        self.place = nn.Embedding(MAX_LIST, width)
        nn.init.normal_(self.place.weight, std=0.02)
        self.fields = nn.ModuleList(
            nn.ModuleList(
                EncoderLayer(width, settings.attention_heads, 2, settings.dropout)
                for _ in range(settings.layers)
            )
            for _ in range(count)
        )
        self.out = nn.Sequential(
            nn.Linear(2 * size + user_size + width, 2 * size), nn.ReLU(), nn.Linear(2 * size, 1)
        )

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Fields of the candidates [B, M, F D] and of the user [B, F' D]."""
        item = self.item(batch.item_cat, batch.item_dense).flatten(2)
        return item, self.user(batch.user_cat, batch.user_dense).flatten(1)

    # --- FPSM ---------------------------------------------------------------------------------

    def scores(self, item_BMx: Tensor, user_Bx: Tensor) -> Tensor:
        """Pointwise logits [B, M]."""
        user = user_Bx.unsqueeze(1).expand(-1, item_BMx.size(1), -1)
        logits: Tensor = self.own(torch.cat([item_BMx, user], dim=-1)).squeeze(-1)
        return logits

    def draw(self, scores_BM: Tensor, count_B: Tensor, noise_PM: Tensor, length: int) -> Tensor:
        """Plackett-Luce draws int64 [B, P, n] over scores standardised within the request."""
        m = scores_BM.size(1)
        free = torch.arange(m, device=count_B.device) < count_B.unsqueeze(1)
        number = free.sum(1, keepdim=True)
        mean = scores_BM.masked_fill(~free, 0).sum(1, keepdim=True) / number
        spread = ((scores_BM - mean).masked_fill(~free, 0) ** 2).sum(1, keepdim=True) / number
        standard = (scores_BM - mean) / (spread.sqrt() + 1e-3)
        keys = standard.unsqueeze(1) / self.settings.temperature + noise_PM
        keys = keys.masked_fill(~free.unsqueeze(1), BLOCKED)
        lists = keys.topk(min(length, m), dim=2).indices
        place = torch.arange(lists.size(2), device=count_B.device)
        return lists.masked_fill(place >= count_B.view(-1, 1, 1), -1)

    def whole(self, item_BMx: Tensor, lists_BPN: Tensor) -> Tensor:
        """A vector for each permutation [B, P, F D]: its items weighted by their places."""
        batch, number, length = lists_BPN.shape
        chosen = _items(item_BMx, lists_BPN.flatten(1)).view(batch, number, length, -1)
        weight = self.place_weight.weight[:length, 0].softmax(0).view(1, 1, -1, 1)
        return (chosen * weight * (lists_BPN >= 0).unsqueeze(-1)).sum(2)

    def wanted(self, item_BMx: Tensor, user_Bx: Tensor, count_B: Tensor) -> Tensor:
        """The user's interest [B, F D]."""
        free = torch.arange(item_BMx.size(1), device=count_B.device) < count_B.unsqueeze(1)
        mean = (item_BMx * free.unsqueeze(-1)).sum(1) / count_B.unsqueeze(1)
        wanted: Tensor = self.interest(torch.cat([user_Bx, mean], dim=-1))
        return wanted

    def nearest(self, whole_BPx: Tensor, wanted_Bx: Tensor) -> Tensor:
        """Indices [B, K] of the permutations with the smallest Hamming distance; ties in order."""
        bits = whole_BPx @ self.planes > 0  # type: ignore[operator]
        ours = wanted_Bx @ self.planes > 0  # type: ignore[operator]
        distance = (bits != ours.unsqueeze(1)).sum(-1)
        return distance.sort(dim=1, stable=True).indices[:, : self.settings.keep]

    # --- OCPM ---------------------------------------------------------------------------------

    def predict(self, item_BMx: Tensor, user_Bx: Tensor, lists_BN: Tensor) -> Tensor:
        """Logit of the utility of each item of whole lists [B, N]."""
        chosen = _items(item_BMx, lists_BN)
        length = lists_BN.size(1)
        place = self.place.weight[:length]
        mask = torch.zeros_like(lists_BN, dtype=chosen.dtype).masked_fill(lists_BN < 0, BLOCKED)
        mask = mask.unsqueeze(1).unsqueeze(1)
        seen = [chosen]
        width = self.place.embedding_dim
        for index, stack in enumerate(self.fields):
            x = chosen[..., index * width : (index + 1) * width] + place
            for layer in stack:  # type: ignore[attr-defined]
                x = layer(x, mask)
            seen.append(x)
        user = user_Bx.unsqueeze(1).expand(-1, length, -1)
        seen += [user, place.expand(len(chosen), -1, -1)]
        logits: Tensor = self.out(torch.cat(seen, dim=-1)).squeeze(-1)
        return logits

    def values(self, item_BMx: Tensor, user_Bx: Tensor, lists_BPN: Tensor) -> Tensor:
        """Sum of the predicted utilities of each list [B, P]."""
        number = lists_BPN.size(1)
        flat = lists_BPN.flatten(0, 1)
        logits = self.predict(
            item_BMx.repeat_interleave(number, 0), user_Bx.repeat_interleave(number, 0), flat
        )
        utility = logits.sigmoid().masked_fill(flat < 0, 0)
        if self.discounted:
            place = torch.arange(flat.size(1), device=flat.device)
            utility = utility / torch.log2(place + 2.0)
        return utility.sum(1).view(-1, number)

    # --- both ---------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> Tensor:
        item, user = self.embed(batch)
        scores = self.scores(item, user)
        own = shown_loss(scores.gather(1, batch.exposed.clamp(min=0)), batch)
        listwise = shown_loss(self.predict(item, user, batch.exposed), batch)
        loss = own + listwise
        if self.training and self.settings.comparative > 0:
            loss = loss + self.settings.comparative * self.comparative(batch, item, user, scores)
        return loss

    def comparative(self, batch: Batch, item: Tensor, user: Tensor, scores: Tensor) -> Tensor:
        """Of two drawn lists, the one of the higher predicted value is nearer to the interest."""
        with torch.no_grad():
            uniform = torch.rand(2, scores.size(1), device=scores.device)
            noise = -torch.log(-torch.log(uniform.clamp(1e-6, 1 - 1e-6)))
            lists = self.draw(scores, batch.count, noise, batch.exposed.size(1))
            value = self.values(item, user, lists)
            sign = torch.sign(value[:, 0] - value[:, 1])
        near = torch.cosine_similarity(
            self.whole(item, lists), self.wanted(item, user, batch.count).unsqueeze(1), dim=-1
        )
        return -logsigmoid(sign * (near[:, 0] - near[:, 1]) * 5.0).mean()

    def order(self, batch: Batch) -> Tensor:
        item, user = self.embed(batch)
        seeds = torch.arange(self.settings.pool, device=item.device) + 1
        noise = random_keys(seeds, item.size(1))
        noise[0] = 0.0  # the pointwise head's own best order
        scores = self.scores(item, user)
        pool = self.draw(scores, batch.count, noise, self.list_size)
        pool[:, -1] = batch.given(pool.size(2))
        near = self.nearest(self.whole(item, pool), self.wanted(item, user, batch.count))  # [B, K]
        kept = pool.gather(1, near.unsqueeze(2).expand(-1, -1, pool.size(2)))
        best = self.values(item, user, kept).argmax(1)
        return kept[torch.arange(len(best), device=best.device), best]


def _items(item_BMx: Tensor, lists_BN: Tensor) -> Tensor:
    index = lists_BN.clamp(min=0).unsqueeze(-1).expand(-1, -1, item_BMx.size(-1))
    return item_BMx.gather(1, index)


class PierPeer:
    """The peer; the epoch is the one of the lowest held-out loss of both heads."""

    name = "pier"
    paper = "Shi et al., PIER: Permutation-Level Interest-Based Re-ranking Framework, KDD 2023"
    settings_type = PierSettings

    def fit(
        self,
        train: SlateArrays,
        valid: SlateArrays,
        spec: FeatureSpec,
        settings: PierSettings,
        seed: int,
        on_epoch: OnEpoch,
    ) -> FittedNetwork:
        check_spec(train, valid, spec)
        torch.manual_seed(seed)
        model = Pier(spec, settings, discounted(settings.discount, train)).to(device())
        epochs = fit_network(
            model,
            model.loss,
            lambda: mean_loss(model.loss, valid, device()),
            train,
            settings.optim,
            seed,
            on_epoch,
        )
        return FittedNetwork(model, model.order, epochs, spec.list_size)
