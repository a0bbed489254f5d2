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
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch

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
from training.pairs.beam import beam_search
from training.pairs.ensemble import Ensemble
from training.pairs.evaluator import Evaluator
from training.settings import EvaluatorSettings, OptimSettings


class ContextSettings(PeerSettings, kw_only=True, frozen=True):
    """Of a listwise model; as EvaluatorSettings has them.

    Attributes:
        discount: of the sum over a list; ``fitting.discounted`` says what ``auto`` is. Use ``log``
            for pseudo-lists, whose positions were never on a screen.
    """

    optim: OptimSettings = EvaluatorSettings().optim
    width: int = 48
    layers: int = 2
    attention_heads: int = 4
    dropout: float = 0.1
    id_dropout: float = 0.3
    rates: bool = True
    discount: str = "auto"

    def evaluator(self, train: SlateArrays) -> EvaluatorSettings:
        return EvaluatorSettings(
            optim=self.optim,
            width=self.width,
            layers=self.layers,
            attention_heads=self.attention_heads,
            dropout=self.dropout,
            id_dropout=self.id_dropout,
            rates=self.rates,
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
        "id_dropout": (0.0, 0.3),
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
        searched = Ensemble([model])
        return FittedNetwork(
            model,
            lambda batch: beam_search(
                searched, batch, spec.list_size, settings.beam, settings.stable
            )[0],
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
    model.count(train)
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
