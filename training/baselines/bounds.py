"""The orders that every table needs beside its systems: given, random, and the oracle's.

Axes: B requests, M candidates, n list positions.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from contracts.features import FeatureSpec
from training.baselines.interface import OnEpoch, PeerSettings
from training.data.arrays import SlateArrays
from training.data.batch import Batch
from training.sources.world import World


class NoSettings(PeerSettings, kw_only=True, frozen=True):
    """There is nothing to set."""


class GivenOrder:
    """The previous stage's order: the first bar."""

    name = "given"
    paper = "the order that the reranker receives"
    settings_type = NoSettings

    def fit(
        self,
        train: SlateArrays,
        valid: SlateArrays,
        spec: FeatureSpec,
        settings: NoSettings,
        seed: int,
        on_epoch: OnEpoch,
    ) -> _Given:
        return _Given(spec.list_size)


class _Given:
    parameters = 0
    epochs = 0

    def __init__(self, list_size: int) -> None:
        self.list_size = list_size

    def rerank(self, batch: Batch) -> Tensor:
        return batch.given(self.list_size)


class RandomOrder:
    """Candidates in random order: the floor."""

    name = "random"
    paper = "candidates drawn without replacement, all equally likely"
    settings_type = NoSettings

    def fit(
        self,
        train: SlateArrays,
        valid: SlateArrays,
        spec: FeatureSpec,
        settings: NoSettings,
        seed: int,
        on_epoch: OnEpoch,
    ) -> _Random:
        return _Random(spec.list_size, seed)


class _Random:
    parameters = 0
    epochs = 0

    def __init__(self, list_size: int, seed: int) -> None:
        self.list_size = list_size
        self.seed = seed

    def rerank(self, batch: Batch) -> Tensor:
        """The order of a slate depends on its row and the seed, not on its company."""
        order = torch.full([batch.size, self.list_size], -1, dtype=torch.long)
        for place, (row, m) in enumerate(zip(batch.row.tolist(), batch.count.tolist())):
            drawn = np.random.default_rng([self.seed, row]).permutation(m)[: self.list_size]
            order[place, : len(drawn)] = torch.from_numpy(drawn)
        return order.to(batch.count.device)


class Oracle:
    """The greedy list by the simulated world's truth, as ``World.greedy_oracle``.

    A bound, not a peer: it is made from the world and the very slates that it will be asked about.
    """

    name = "oracle"
    paper = "greedy by the true expected clicks; a lower bound of the best list"
    parameters = 0
    epochs = 0

    def __init__(self, world: World, slates: SlateArrays) -> None:
        self.list_size = slates.spec.list_size
        self._orders = np.full((len(slates), self.list_size), -1, np.int64)
        users = world.user_rows(slates.user.tolist())
        for m in np.unique(slates.count):  # the world takes requests of one size
            rows = np.flatnonzero(slates.count == m)
            names = slates.items[rows, :m]
            items = world.item_rows(names.ravel().tolist()).reshape(names.shape)
            orders = world.greedy_oracle(users[rows], items, self.list_size)
            self._orders[rows, : orders.shape[1]] = orders

    def rerank(self, batch: Batch) -> Tensor:
        return torch.from_numpy(self._orders[batch.row.cpu().numpy()]).to(batch.count.device)
