"""Seq2Slate trained by supervision: at each step the clicked items that are not yet placed.

Bello et al., "Seq2Slate: Re-ranking and Slate Optimization with RNNs", 2018. Of its two ways to
train, REINFORCE and the per-step cross-entropy, this is the second: its paper finds it as good and
quicker, and REINFORCE would need a reward for lists with candidates that nobody saw.

Simplified: the paper feeds the network its own choices while it trains; here it is fed the list
that is wanted, the shown items with the clicked ones first (Eq. 7 of Gen-Reranker's paper), all
steps at once. ``tail`` adds the items without feedback, in their shown order, with less weight.

Axes: B batch, M candidates, N list positions.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from contracts.features import FeatureSpec
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
from training.baselines.seq2slate import Seq2Slate
from training.data.arrays import SlateArrays
from training.data.batch import Batch
from training.losses.likelihood import chosen_before
from training.model.layers import BLOCKED
from training.pairs.base import sort_exposed


class Seq2SlateSettings(NetworkSettings, kw_only=True, frozen=True):
    """Settings of Seq2Slate.

    Attributes:
        layers: of both LSTMs. attention_heads and dropout are not used.
        tail: weight of the steps at which no clicked item is left.
    """

    SEARCH: ClassVar[dict[str, tuple[Any, ...]]] = {
        "optim.learning_rate": (3e-4, 1e-3, 3e-3),
        "layers": (1, 2),
        "tail": (0.0, 0.1, 1.0),
        "width": (64, 128),
    }

    layers: int = 1
    tail: float = 0.1


def teacher_forced(network: Seq2Slate, batch: Batch, lists_BN: Tensor) -> Tensor:
    """The pointer's logits [B, N, M] where each step has been fed the list so far."""
    x_BMD, blocked_BM = network.input(*inputs(batch))
    key_BMD, h_LBD, c_LBD = network.read(x_BMD, batch.count)
    index = lists_BN[:, :-1].clamp(min=0).unsqueeze(2).expand(-1, -1, x_BMD.size(2))
    begin = network.begin.expand(batch.size, 1, -1)
    d_BND, _ = network.decoder(torch.cat([begin, x_BMD.gather(1, index)], 1), (h_LBD, c_LBD))
    query = network.query(d_BND).unsqueeze(2)
    pointed: Tensor = network.point(torch.tanh(key_BMD.unsqueeze(1) + query)).squeeze(-1)
    logits: Tensor = pointed + blocked_BM.unsqueeze(1)
    return logits


def clicked_first(batch: Batch) -> tuple[Tensor, Tensor]:
    """The shown lists sorted by Eq. 7 [B, N], and the utility of their items in that order."""
    place = torch.arange(batch.exposed.size(1), device=batch.exposed.device)
    place = place.expand_as(batch.exposed).masked_fill(batch.exposed < 0, -1)
    order = sort_exposed(place, batch.utility, 1.0, 1.0)
    after, order = order < 0, order.clamp(min=0)
    lists = batch.exposed.gather(1, order).masked_fill(after, -1)
    return lists, batch.utility.gather(1, order).masked_fill(after, 0.0)


def step_loss(logits_BNM: Tensor, lists_BN: Tensor, gain_BN: Tensor, tail: float) -> Tensor:
    """Per-step cross-entropy, mean over steps within a list and then over lists.

    At each step the target is spread over the items that still follow, in proportion to their
    gain; once none with a gain is left it is the next item of the list, with weight ``tail``.

    Args:
        lists_BN: those with the highest gain first. gain_BN: U of each item of the list.
    """
    before = chosen_before(lists_BN, logits_BNM.size(-1))[:, :-1]
    log_p = logits_BNM.masked_fill(before, BLOCKED).log_softmax(-1)
    index = lists_BN.clamp(min=0).unsqueeze(1).expand(-1, lists_BN.size(1), -1)
    log_p = log_p.gather(2, index)  # [B, step, item of the list]
    place = torch.arange(lists_BN.size(1), device=lists_BN.device)
    valid = lists_BN >= 0
    left = (place.unsqueeze(0) >= place.unsqueeze(1)) & valid.unsqueeze(1)
    gain = gain_BN.unsqueeze(1) * left
    total = gain.sum(2, keepdim=True)
    target = torch.where(total > 0, gain / total.clamp(min=1e-9), 0.0)
    following = torch.eye(len(place), device=lists_BN.device) * (total <= 0) * tail
    weight = (target + following) * left
    losses = -(weight * log_p.masked_fill(~left, 0.0)).sum(2)
    return (losses.sum(1) / valid.sum(1).clamp(min=1)).mean()


class Seq2SlatePeer:
    """The peer; its epoch is chosen as ``decoded_scores`` says."""

    name = "seq2slate"
    paper = "Bello et al., Seq2Slate: Re-ranking and Slate Optimization with RNNs, 2018"
    settings_type = Seq2SlateSettings

    def fit(
        self,
        train: SlateArrays,
        valid: SlateArrays,
        spec: FeatureSpec,
        settings: Seq2SlateSettings,
        seed: int,
        on_epoch: OnEpoch,
    ) -> FittedNetwork:
        check_spec(train, valid, spec)
        torch.manual_seed(seed)
        network = Seq2Slate(spec, settings.model()).to(device())

        def loss(batch: Batch) -> Tensor:
            lists, gain = clicked_first(batch)
            return step_loss(teacher_forced(network, batch, lists), lists, gain, settings.tail)

        def rerank(batch: Batch) -> Tensor:
            order: Tensor = network(*inputs(batch))[0]
            return order.long()

        epochs = fit_network(
            network,
            loss,
            lambda: decoded_scores(rerank, loss, valid, device()),
            train,
            settings.optim,
            seed,
            on_epoch,
        )
        return FittedNetwork(network, rerank, epochs, spec.list_size)
