"""NAR4Rec in full: matching model, unlikelihood, contrastive decoding, and its evaluator.

Ren et al., "Non-autoregressive Generative Models for Reranking Recommendation", KDD 2024. Lists
that did well are made likely, lists that did badly unlikely, at all positions at once; decoding
takes from position to position what matches best and is not like what was taken; of several lists
the evaluator takes the best.

Simplified: "did well" is a discounted sum of the utility at or above its mean over the training
lists (the paper's score of a list is its own). The evaluator is the listwise one of training/pairs.
Lists besides the greedy one are drawn with Gumbel noise, the same for every request.

Axes: B requests, G draws, N list positions, M candidates, D width.
"""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from contracts.features import FeatureSpec
from training.baselines.edge_rerank import ContextSettings, fit_context
from training.baselines.fitting import (
    FittedNetwork,
    NetworkSettings,
    check_spec,
    decoded_scores,
    device,
    fit_network,
    inputs,
)
from training.baselines.interface import OnEpoch
from training.baselines.nar4rec import Nar4Rec
from training.data.arrays import SlateArrays
from training.data.batch import Batch
from training.losses.likelihood import mean_over_lists
from training.model.layers import BLOCKED
from training.pairs.base import random_keys


class Nar4RecSettings(NetworkSettings, kw_only=True, frozen=True):
    """Settings of NAR4Rec.

    Attributes:
        unlikelihood: weight of the lists that did badly.
        contrast: weight alpha of the likeness to items taken before, 0 to 1.
        draws, temperature: lists drawn besides the greedy one, and how freely; with 0 draws there
            is no evaluator.
        evaluator: settings of the listwise evaluator.
    """

    SEARCH: ClassVar[dict[str, tuple[Any, ...]]] = {
        "optim.learning_rate": (3e-4, 1e-3, 2e-3),
        "layers": (1, 2, 4),
        "unlikelihood": (0.1, 1.0),
        "contrast": (0.0, 0.1, 0.3),
        "draws": (8, 32),
    }

    unlikelihood: float = 1.0
    contrast: float = 0.1
    draws: int = 16
    temperature: float = 1.0
    evaluator: ContextSettings = ContextSettings()

    def __post_init__(self) -> None:
        if not 0 <= self.contrast < 1:
            raise ValueError(f"contrast is {self.contrast}; allowed: 0 to below 1")
        if self.draws < 0 or self.unlikelihood < 0 or self.temperature <= 0:
            raise ValueError("draws and unlikelihood must be 0 or more, temperature above 0")


def list_gain(exposed_BN: Tensor, utility_BN: Tensor) -> Tensor:
    """Discounted sum of the utility [B]: the same feedback counts more at the top."""
    place = torch.arange(exposed_BN.size(1), device=exposed_BN.device)
    discount = 1 / torch.log2(place + 2.0)
    return (utility_BN * (exposed_BN >= 0) * discount).sum(1)


def likelihood_loss(logits_BNM: Tensor, batch: Batch, good_B: Tensor, weight: float) -> Tensor:
    """-log p(y_t) for lists that did well, -weight * log(1 - p(y_t)) for the others."""
    log_p = logits_BNM.log_softmax(-1).gather(2, batch.exposed.clamp(min=0).unsqueeze(2)).squeeze(2)
    # log(1 - p); where p is 1 to rounding the gradient must stay finite.
    log_not = torch.log1p(-log_p.exp().clamp(max=1 - 1e-6))
    losses = torch.where(good_B.unsqueeze(1), -log_p, -weight * log_not)
    return mean_over_lists(losses, batch.exposed >= 0)


def contrastive_decode(logits_BNM: Tensor, z_BMD: Tensor, contrast: float) -> Tensor:
    """Lists int64 [B, N] by (1 - alpha) p(y_t) - alpha max_j cos(y_t, y_j), j < t; no repeats.

    Args:
        logits_BNM: blocked at padding; -1 once nothing is free.
    """
    unit = normalize(z_BMD, dim=-1)
    bias_BM = torch.zeros_like(logits_BNM[:, 0])
    likeness_BM = torch.full_like(bias_BM, -1.0)
    rows = torch.arange(len(unit), device=unit.device)
    lists = []
    for place in range(logits_BNM.size(1)):
        masked = logits_BNM[:, place] + bias_BM
        free = masked > BLOCKED / 2
        score = (1 - contrast) * masked.softmax(-1)
        if place > 0:
            score = score - contrast * likeness_BM
        item_B = score.masked_fill(~free, BLOCKED).argmax(1)
        lists.append(torch.where(free.any(1), item_B, -1))
        likeness_BM = torch.maximum(likeness_BM, (unit @ unit[rows, item_B].unsqueeze(2))[..., 0])
        bias_BM = bias_BM.scatter(1, item_B.unsqueeze(1), BLOCKED)
    return torch.stack(lists, dim=1)


class Nar4RecPeer:
    """The peer; the generator's epoch as ``decoded_scores`` says, the evaluator's by its loss."""

    name = "nar4rec"
    paper = "Ren et al., Non-autoregressive Generative Models for Reranking, KDD 2024"
    settings_type = Nar4RecSettings

    def fit(
        self,
        train: SlateArrays,
        valid: SlateArrays,
        spec: FeatureSpec,
        settings: Nar4RecSettings,
        seed: int,
        on_epoch: OnEpoch,
    ) -> FittedNetwork:
        check_spec(train, valid, spec)
        torch.manual_seed(seed)
        network = Nar4Rec(spec, settings.model()).to(device())
        gains = list_gain(torch.from_numpy(train.exposed), torch.from_numpy(train.utility))
        bar = float(np.mean(gains.numpy()))

        def loss(batch: Batch) -> Tensor:
            logits, blocked = network.logits(*inputs(batch))
            logits = (logits + blocked.unsqueeze(1))[:, : batch.exposed.size(1)]
            good = list_gain(batch.exposed, batch.utility) >= bar
            return likelihood_loss(logits, batch, good, settings.unlikelihood)

        @cache
        def noise(draws: int, places: int, candidates: int) -> Tensor:
            """Of the greedy list, none, and of every draw its own [1 + G, N, M]."""
            seeds = torch.arange(places) + 64 * torch.arange(1, draws + 1).unsqueeze(1)
            keys = random_keys(seeds.flatten(), candidates).view(draws, places, candidates)
            return settings.temperature * torch.cat([torch.zeros(1, *keys.shape[1:]), keys])

        def generate(batch: Batch, draws: int) -> Tensor:
            """The greedy list and ``draws`` more [B, 1 + G, n]."""
            logits, blocked, z = network.match(*inputs(batch))
            logits = (logits + blocked.unsqueeze(1)).unsqueeze(1)
            logits = logits + noise(draws, *logits.shape[2:]).to(z.device)
            each = z.unsqueeze(1).expand(-1, draws + 1, -1, -1)
            lists = contrastive_decode(logits.flatten(0, 1), each.flatten(0, 1), settings.contrast)
            return lists.view(batch.size, draws + 1, -1)

        epochs = fit_network(
            network,
            loss,
            lambda: decoded_scores(lambda batch: generate(batch, 0)[:, 0], loss, valid, device()),
            train,
            settings.optim,
            seed,
            on_epoch,
        )
        if settings.draws == 0:
            return FittedNetwork(
                network, lambda batch: generate(batch, 0)[:, 0], epochs, spec.list_size
            )
        evaluator, _ = fit_context(train, valid, settings.evaluator, seed, on_epoch)

        def best(batch: Batch) -> Tensor:
            lists = generate(batch, settings.draws)
            chosen = evaluator.value(batch, lists).argmax(1)
            return lists[torch.arange(batch.size, device=chosen.device), chosen]

        both = nn.ModuleList([network, evaluator])
        return FittedNetwork(both, best, epochs, spec.list_size)
