"""A peer whose requests also hold rates: how often items like each candidate did well.

No paper's method has them among its features, but a team with a feature store has, and GReF's
evaluators count the same (training/pairs/rates.py). These rows say what the peers make of it.

Axes: S slates, B requests, M candidates, K rates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from contracts.features import Dense, FeatureSpec
from training.baselines.fitting import check_spec
from training.baselines.interface import Fitted, OnEpoch, Peer, PeerSettings
from training.data.arrays import SlateArrays
from training.data.batch import Batch
from training.pairs.rates import Rates

ROWS = 1024


@dataclass(frozen=True)
class WithRates:
    """``peer`` on the same lists, each candidate with K more numbers."""

    peer: Peer

    @property
    def name(self) -> str:
        return f"{self.peer.name}-rates"

    @property
    def paper(self) -> str:
        return f"{self.peer.paper}; with the rates that GReF's evaluators count"

    @property
    def settings_type(self) -> type[PeerSettings]:
        return self.peer.settings_type

    def fit(
        self,
        train: SlateArrays,
        valid: SlateArrays,
        spec: FeatureSpec,
        settings: Any,
        seed: int,
        on_epoch: OnEpoch,
    ) -> FittedWithRates:
        check_spec(train, valid, spec)
        rates = Rates(spec)
        rates.add(train)
        wider = _wider(spec, rates.columns)
        rates.train()  # of the lists that were counted: out of fold
        learned = _with_rates(train, rates, wider)
        rates.eval()
        held_out = _with_rates(valid, rates, wider)
        fitted = self.peer.fit(learned, held_out, wider, settings, seed, on_epoch)
        return FittedWithRates(fitted, rates, spec)


class FittedWithRates:
    """A fitted peer that looks the rates up before it reranks."""

    def __init__(self, fitted: Fitted, rates: Rates, spec: FeatureSpec) -> None:
        self._fitted, self._rates, self._spec = fitted, rates.eval(), spec

    @property
    def parameters(self) -> int:
        return self._fitted.parameters + self._rates.numbers

    @property
    def epochs(self) -> int:
        return self._fitted.epochs

    def rerank(self, batch: Batch) -> Tensor:
        own = batch.to(self._rates.mean.device)
        rates_BMK = self._rates(own.item_cat, own.user_cat, own.row)
        dense = _beside(own.item_dense, rates_BMK, self._spec)
        return self._fitted.rerank(replace(own, item_dense=dense)).to(batch.count.device)


def _wider(spec: FeatureSpec, columns: int) -> FeatureSpec:
    """The spec with a dense item feature for each rate.

    Raises:
        ValueError: a feature has the name of a rate already.
    """
    added = tuple(Dense(name=f"rate_{number}") for number in range(columns))
    item = msgspec.structs.replace(spec.item, dense=spec.item.dense + added)
    return msgspec.structs.replace(spec, item=item)


def _beside(dense_BME: Tensor, rates_BMK: Tensor, spec: FeatureSpec) -> Tensor:
    """Dense columns and rates, each rate with its missing flag, which is 0."""
    pairs = torch.stack([rates_BMK, torch.zeros_like(rates_BMK)], dim=-1).flatten(2)
    if not spec.item.dense:  # the constant pair that stands for "no feature"
        return pairs if pairs.size(2) else dense_BME
    return torch.cat([dense_BME, pairs], dim=2)


def _with_rates(slates: SlateArrays, rates: Rates, wider: FeatureSpec) -> SlateArrays:
    """Slates of the wider spec."""
    parts = []
    for first in range(0, len(slates), ROWS):
        rows = torch.arange(first, min(first + ROWS, len(slates)))
        item_cat = torch.from_numpy(slates.item_cat[first : first + ROWS])
        user_cat = torch.from_numpy(slates.user_cat[first : first + ROWS])
        dense = torch.from_numpy(slates.item_dense[first : first + ROWS])
        found = rates(item_cat, user_cat, rows)
        parts.append(_beside(dense, found, slates.spec).numpy())
    return replace(slates, spec=wider, item_dense=np.concatenate(parts))
