"""Peers that give each candidate one score and show the best: DNN, DCN v2 and PRM.

All are trained on the items that were shown, by the cross-entropy of the utility with a learned
logit for the place at which an item stood (Craswell et al., WSDM 2008, as a bias in the logit); the
place is left out at serving. They score all m candidates.

Axes: B batch, M padded candidates, N shown positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from contracts.features import FeatureSpec
from training.baselines.choosing import best_first
from training.baselines.dcn import Dcn
from training.baselines.dnn import Dnn
from training.baselines.fitting import (
    FittedNetwork,
    NetworkSettings,
    PlaceBias,
    check_spec,
    device,
    fit_network,
    inputs,
    mean_loss,
    shown_loss,
)
from training.baselines.interface import OnEpoch
from training.baselines.prm import Prm
from training.data.arrays import SlateArrays
from training.data.batch import Batch


class ScorerSettings(NetworkSettings, kw_only=True, frozen=True):
    """Settings of a peer that scores.

    Attributes:
        place_bias: whether the place at which an item was shown has a logit of its own.
    """

    SEARCH: ClassVar[dict[str, tuple[Any, ...]]] = {
        "optim.learning_rate": (3e-4, 1e-3, 3e-3),
        "layers": (1, 2, 4),
        "dropout": (0.0, 0.1, 0.3),
        "optim.weight_decay": (0.01, 0.1),
        "place_bias": (True, False),
    }

    place_bias: bool = True


class DcnSettings(ScorerSettings, kw_only=True, frozen=True):
    """Settings of DCN v2: ``width`` is of each feature's vector, ``layers`` of crosses too."""

    width: int = 16
    hidden: int = 128


class Scorer(nn.Module):
    """A network with ``scores``, and the bias of places while it trains."""

    def __init__(self, network: nn.Module, list_size: int, place: PlaceBias | None) -> None:
        super().__init__()
        self.network = network
        self.list_size = list_size
        self.place = place

    def loss(self, batch: Batch) -> Tensor:
        scores_BM, _ = self.network.scores(*inputs(batch))  # type: ignore[operator]
        logits_BN = scores_BM.gather(1, batch.exposed.clamp(min=0))
        if self.place is not None:
            logits_BN = logits_BN + self.place(batch.exposed.size(1))
        return shown_loss(logits_BN, batch)

    def order(self, batch: Batch) -> Tensor:
        scores_BM, blocked_BM = self.network.scores(*inputs(batch))  # type: ignore[operator]
        return best_first(scores_BM, blocked_BM, self.list_size)[0]


@dataclass(frozen=True)
class ScorerPeer:
    """A peer around a network; the epoch is the one of the lowest held-out loss."""

    name: str
    paper: str
    settings_type: type[ScorerSettings]
    build: Callable[[FeatureSpec, Any], nn.Module]

    def fit(
        self,
        train: SlateArrays,
        valid: SlateArrays,
        spec: FeatureSpec,
        settings: ScorerSettings,
        seed: int,
        on_epoch: OnEpoch,
    ) -> FittedNetwork:
        check_spec(train, valid, spec)
        torch.manual_seed(seed)
        place = PlaceBias(train) if settings.place_bias else None
        scorer = Scorer(self.build(spec, settings), spec.list_size, place)
        scorer = scorer.to(device())
        epochs = fit_network(
            scorer,
            scorer.loss,
            lambda: mean_loss(scorer.loss, valid, device()),
            train,
            settings.optim,
            seed,
            on_epoch,
        )
        return FittedNetwork(scorer, scorer.order, epochs, spec.list_size)


def _dcn(spec: FeatureSpec, settings: DcnSettings) -> Dcn:
    return Dcn(
        spec, settings.width, settings.layers, settings.layers, settings.hidden, settings.dropout
    )


DNN = ScorerPeer(
    "dnn",
    "Covington et al., Deep Neural Networks for YouTube Recommendations, RecSys 2016",
    ScorerSettings,
    lambda spec, settings: Dnn(spec, settings.model()),
)
DCN = ScorerPeer(
    "dcn",
    "Wang et al., DCN V2: Improved Deep & Cross Network, WWW 2021",
    DcnSettings,
    _dcn,
)
PRM = ScorerPeer(
    "prm",
    "Pei et al., Personalized Re-ranking for Recommendation, RecSys 2019",
    ScorerSettings,
    lambda spec, settings: Prm(spec, settings.model()),
)
