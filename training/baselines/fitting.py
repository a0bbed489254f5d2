"""The loop that trains every network here: AdamW, warm-up and cosine decay, early stopping.

Shorter than training/loop.py on purpose: one process, nothing to resume, no alarms.

Axes: B batch, M candidates, N list positions.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from contracts.features import MAX_LIST, FeatureSpec
from training.baselines.interface import Fitted, OnEpoch, PeerSettings
from training.data.arrays import SlateArrays
from training.data.batch import Batch
from training.evaluation.metrics import evaluate_orders
from training.settings import ModelSettings, OptimSettings

HELD_OUT_BATCH = 512


class NetworkSettings(PeerSettings, kw_only=True, frozen=True):
    """Settings of networks of Transformer blocks, or of what stands in their place.

    Attributes:
        layers: of each stack that the peer has.
    """

    width: int = 64
    layers: int = 2
    attention_heads: int = 4
    dropout: float = 0.1

    def model(self) -> ModelSettings:
        """As the networks of this package take them."""
        return ModelSettings(
            width=self.width,
            encoder_layers=self.layers,
            decoder_layers=self.layers,
            attention_heads=self.attention_heads,
            dropout=self.dropout,
        )


class PlaceBias(nn.Module):
    """A logit for each place of the shown list: what examination adds, dropped at serving.

    Begins as the logit of the mean utility at each place, so that the scores begin with the rest.
    """

    def __init__(self, train: SlateArrays) -> None:
        super().__init__()
        shown = train.exposed >= 0
        rate = np.where(shown, train.utility, 0).sum(0) / np.maximum(1, shown.sum(0))
        rate = np.clip(rate, 1e-3, 1 - 1e-3)
        bias = np.zeros(MAX_LIST, np.float32)
        bias[: len(rate)] = np.log(rate / (1 - rate))
        self.bias = nn.Parameter(torch.from_numpy(bias))

    def forward(self, length: int) -> Tensor:
        """[N]."""
        return self.bias[:length]


class FittedNetwork:
    """A network with the function that makes lists of it."""

    def __init__(
        self, network: nn.Module, order: Callable[[Batch], Tensor], epochs: int, list_size: int
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.epochs = epochs
        self.parameters = sum(one.numel() for one in network.parameters())
        self._order = order
        self._list_size = list_size

    @torch.inference_mode()
    def rerank(self, batch: Batch) -> Tensor:
        own = next(self.network.parameters()).device
        order = self._order(batch.to(own)).long().to(batch.count.device)
        return _of_length(order, self._list_size)


def _of_length(order_BN: Tensor, length: int) -> Tensor:
    missing = length - order_BN.size(1)
    return nn.functional.pad(order_BN, (0, missing), value=-1)


def discounted(discount: str, train: SlateArrays) -> bool:
    """Whether predictions of a list are summed with weights 1 / log2(k + 1), as in DCG.

    ``auto`` does so where all candidates are always shown: what is left to choose is the order
    alone, and without an effect of the position the sum would be the same for all orders.

    Raises:
        ValueError: another word than auto, none and log.
    """
    if discount not in ("auto", "none", "log"):
        raise ValueError(f"discount is {discount!r}; allowed: auto, none, log")
    if discount == "auto":
        return bool(((train.exposed >= 0).sum(axis=1) == train.count).all())
    return discount == "log"


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def inputs(batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The five tensors that the networks of this package take."""
    return batch.item_cat, batch.item_dense, batch.user_cat, batch.user_dense, batch.count


def shown_loss(logits_BN: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of the utility, mean over shown items. A continuous U is a soft label."""
    shown = batch.exposed >= 0
    return binary_cross_entropy_with_logits(logits_BN[shown], batch.utility[shown])


def fit_network(
    network: nn.Module,
    loss: Callable[[Batch], Tensor],
    held_out: Callable[[], Mapping[str, float]],
    train: SlateArrays,
    optim: OptimSettings,
    seed: int,
    on_epoch: OnEpoch,
) -> int:
    """Train in place, and leave the weights of the best epoch.

    Args:
        loss: of a batch.
        held_out: called in eval mode after each epoch; its ``held_out`` chooses the epoch.
        on_epoch: see ``interface.OnEpoch``.

    Returns:
        The chosen epoch, from 1; 0 where there were none.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    where = next(network.parameters()).device
    per_epoch = -(-len(train) // optim.batch_size)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=optim.learning_rate, weight_decay=optim.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _factor(optim, per_epoch))
    best, best_score, best_epoch = copy.deepcopy(network.state_dict()), -math.inf, 0
    for epoch in range(1, optim.epochs + 1):
        torch.manual_seed(seed * 1000 + epoch)
        network.train()
        order = np.random.default_rng([seed, epoch]).permutation(len(train))
        total = 0.0
        for first in range(0, len(order), optim.batch_size):
            value = loss(train.batch(order[first : first + optim.batch_size], where))
            if not torch.isfinite(value):
                raise FloatingPointError(
                    f"the loss is {value.item()} in epoch {epoch}; lower the learning rate "
                    f"({optim.learning_rate:g}), or look for broken features in the slates"
                )
            optimizer.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), optim.clip_norm)
            optimizer.step()
            schedule.step()
            total += float(value.detach())
        network.eval()
        with torch.inference_mode():
            scores = held_out()
        on_epoch(epoch=epoch, loss=total / per_epoch, **scores)
        if scores["held_out"] > best_score:
            best, best_score = copy.deepcopy(network.state_dict()), scores["held_out"]
            best_epoch = epoch
        elif optim.patience and epoch - best_epoch >= optim.patience:
            break
    network.load_state_dict(best)
    network.eval()
    return best_epoch


def _factor(optim: OptimSettings, per_epoch: int) -> Callable[[int], float]:
    steps = max(1, optim.epochs * per_epoch)

    def factor(step: int) -> float:
        warm = min(1.0, (step + 1) / max(1, optim.warm_up_steps))
        return warm * (0.55 + 0.45 * math.cos(math.pi * min(1.0, step / steps)))

    return factor


def mean_loss(
    loss: Callable[[Batch], Tensor], slates: SlateArrays, where: torch.device
) -> dict[str, float]:
    """``held_out`` as minus the loss over all slates, each batch weighing as its slates."""
    total = sum(float(loss(b)) * b.size for b in slates.batches(HELD_OUT_BATCH, where))
    return {"held_out": -total / len(slates)}


def decoded_scores(
    rerank: Callable[[Batch], Tensor],
    loss: Callable[[Batch], Tensor],
    slates: SlateArrays,
    where: torch.device,
) -> dict[str, float]:
    """NDCG of decoded held-out lists beside the loss; for peers that generate.

    ``held_out`` is the NDCG where all candidates were shown. Elsewhere the log does not know what
    a candidate that nobody saw would have earned (docs/evaluation.md), and it is minus the loss.
    """
    all_shown = bool(((slates.exposed >= 0).sum(axis=1) == slates.count).all())
    scores = _ndcg(rerank, slates, where)
    minus_loss = mean_loss(loss, slates, where)["held_out"]
    return {"held_out": scores["ndcg"] if all_shown else minus_loss, **scores}


def _ndcg(
    rerank: Callable[[Batch], Tensor], slates: SlateArrays, where: torch.device
) -> dict[str, float]:
    n = min(slates.spec.list_size, int(slates.count.max()))
    orders = np.concatenate(
        [rerank(batch)[:, :n].cpu().numpy() for batch in slates.batches(HELD_OUT_BATCH, where)]
    )
    per_list = evaluate_orders(orders, slates.exposed, slates.utility, ks=(n,))
    return {name: float(per_list[f"{name}@{n}"].mean()) for name in ("ndcg", "ndcg_shown")}


def logged_ndcg(fitted: Fitted, slates: SlateArrays) -> dict[str, float]:
    """``ndcg`` and ``ndcg_shown`` at the list's length of a fitted peer's lists, by the log."""
    return _ndcg(fitted.rerank, slates, torch.device("cpu"))


def check_spec(train: SlateArrays, valid: SlateArrays, spec: FeatureSpec) -> None:
    """Raises ValueError where slates and spec do not belong together."""
    for name, slates in (("train", train), ("valid", valid)):
        if slates.spec.hash() != spec.hash():
            raise ValueError(f"the {name} slates were encoded with another feature spec")
        if not len(slates):
            raise ValueError(f"no {name} slates")
