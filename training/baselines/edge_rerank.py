"""Edge-Rerank: adaptive beam search over a model that knows what stands before an item.

Gong et al., "Real-time Short Video Recommendation on Mobile Devices", CIKM 2022. A small model
predicts the feedback of a video given those before it, and a beam search builds the list of the
highest reward. The search is adaptive: where the rewards of the beam have come so near to one
another that the choice among them is not stable, it goes on with the best alone.

Simplified: the context model is the causal listwise evaluator of training/pairs, which sees the
items placed so far, their positions and repeats of their categories; what the phone alone knows
(feedback within the session, its network, the videos just watched) is in no slate. The paper's
reward discounts positions by the probability to swipe on; here the model has learned what a
position is worth, so rewards are sums of its predictions. Where the beam is no longer searched, the
paper shows what it has and asks again after the next video; a list of n is owed here, so the rest
is greedy.

Axes: B requests, W beam, M candidates, n list positions.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from contracts.features import FeatureSpec
from training.baselines.fitting import (
    FittedNetwork,
    check_spec,
    device,
    discounted,
    fit_network,
    mean_loss,
)
from training.baselines.interface import OnEpoch, PeerSettings
from training.data.arrays import SlateArrays
from training.data.batch import Batch
from training.model.layers import BLOCKED
from training.pairs.evaluator import Evaluator
from training.pairs.next_items import NextItems
from training.settings import EvaluatorSettings


class ContextSettings(PeerSettings, kw_only=True, frozen=True):
    """Of a listwise model; as EvaluatorSettings has them.

    Attributes:
        discount: of the sum over a list; ``fitting.discounted`` says what ``auto`` is. Use ``log``
            for pseudo-lists, whose positions were never on a screen.
    """

    width: int = 48
    layers: int = 2
    attention_heads: int = 4
    dropout: float = 0.1
    id_dropout: float = 0.0
    discount: str = "auto"

    def evaluator(self, train: SlateArrays) -> EvaluatorSettings:
        return EvaluatorSettings(
            optim=self.optim,
            width=self.width,
            layers=self.layers,
            attention_heads=self.attention_heads,
            dropout=self.dropout,
            id_dropout=self.id_dropout,
            discount="log" if discounted(self.discount, train) else "none",
        )


class EdgeRerankSettings(ContextSettings, kw_only=True, frozen=True):
    """Settings of Edge-Rerank.

    Attributes:
        beam: W.
        stable: lowest over highest reward in the beam from which the search ends; above 1 never.
    """

    SEARCH: ClassVar[dict[str, tuple[Any, ...]]] = {
        "optim.learning_rate": (1e-3, 2e-3, 4e-3),
        "layers": (1, 2),
        "id_dropout": (0.0, 0.2),
        "beam": (2, 5, 10),
        "stable": (0.98, 2.0),
    }

    beam: int = 5
    stable: float = 2.0

    def __post_init__(self) -> None:
        if self.beam < 1:
            raise ValueError(f"beam is {self.beam}; allowed: 1 or more")


class EdgeRerank:
    """The peer; the epoch is the one of the lowest held-out loss of the context model."""

    name = "edge_rerank"
    paper = "Gong et al., Real-time Short Video Recommendation on Mobile Devices, CIKM 2022"
    settings_type = EdgeRerankSettings

    def fit(
        self,
        train: SlateArrays,
        valid: SlateArrays,
        spec: FeatureSpec,
        settings: EdgeRerankSettings,
        seed: int,
        on_epoch: OnEpoch,
    ) -> FittedNetwork:
        check_spec(train, valid, spec)
        model, epochs = fit_context(train, valid, settings, seed, on_epoch)
        return FittedNetwork(
            model,
            lambda batch: beam_search(model, batch, spec.list_size, settings.beam, settings.stable),
            epochs,
            spec.list_size,
        )


def fit_context(
    train: SlateArrays,
    valid: SlateArrays,
    settings: ContextSettings,
    seed: int,
    on_epoch: OnEpoch,
) -> tuple[Evaluator, int]:
    """The listwise model by the shared loop, and its epoch."""
    torch.manual_seed(seed)
    model = Evaluator(train.spec, settings.evaluator(train)).to(device())
    epochs = fit_network(
        model,
        model.loss,
        lambda: mean_loss(model.loss, valid, device()),
        train,
        settings.optim,
        seed,
        on_epoch,
    )
    return model, epochs


@torch.no_grad()
def beam_search(
    model: Evaluator, batch: Batch, list_size: int, beam: int, stable: float = 2.0
) -> Tensor:
    """Lists int64 [B, min(n, M)] of the highest sum of predictions that the beam finds.

    Args:
        stable: see EdgeRerankSettings; greedy from where the beam's rewards are that near.
    """
    m, size = batch.candidates, batch.size
    flat = NextItems(model, _repeat(batch, beam))
    where = batch.count.device
    place = torch.arange(m, device=where)
    taken_BWM = (place >= batch.count.view(-1, 1, 1)).expand(size, beam, m).clone()
    # All beams begin alike: only the first may grow.
    reward_BW = torch.full([size, beam], BLOCKED, device=where)
    reward_BW[:, 0] = 0.0
    lists = torch.full([size, beam, 0], -1, dtype=torch.long, device=where)
    settled_B = torch.zeros(size, dtype=torch.bool, device=where)
    first_B1 = torch.arange(size, device=where).unsqueeze(1) * beam
    for step in range(min(list_size, m)):
        value = flat.scores().view(size, beam, m)
        value = value.sigmoid() if model.binary else value
        if model.discounted:
            value = value / torch.log2(torch.tensor(step + 2.0))
        ended = step >= batch.count  # nothing is left to choose: the list stays as it is
        grown = (reward_BW.unsqueeze(2) + value).masked_fill(taken_BWM, 2 * BLOCKED)
        best_BW, at_BW = grown.flatten(1).topk(beam, dim=1)
        parent_BW, item_BW = at_BW // m, at_BW % m
        own = torch.arange(beam, device=where).expand(size, beam)
        parent_BW = torch.where(ended.unsqueeze(1), own, parent_BW)
        reward_BW = torch.where(ended.unsqueeze(1), reward_BW, best_BW)
        item_BW = item_BW.masked_fill(ended.unsqueeze(1), -1)
        alive_BW = reward_BW > BLOCKED / 2
        lowest = reward_BW.masked_fill(~alive_BW, -BLOCKED).amin(1)
        settled_B |= (alive_BW.sum(1) > 1) & (lowest >= stable * reward_BW[:, 0])
        reward_BW[:, 1:] = reward_BW[:, 1:].masked_fill(settled_B.unsqueeze(1), BLOCKED)
        index = parent_BW.unsqueeze(2)
        lists = lists.gather(1, index.expand(-1, -1, step))
        lists = torch.cat([lists, item_BW.unsqueeze(2)], dim=2)
        taken_BWM = taken_BWM.gather(1, index.expand(-1, -1, m))
        taken_BWM = taken_BWM.scatter(2, item_BW.clamp(min=0).unsqueeze(2), True)
        flat.follow((first_B1 + parent_BW).flatten())
        flat.take(item_BW.flatten())
    return lists[:, 0]


def _repeat(batch: Batch, times: int) -> Batch:
    return Batch(
        **{one.name: getattr(batch, one.name).repeat_interleave(times, 0) for one in fields(batch)}
    )
