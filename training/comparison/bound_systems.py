"""Orders that bound the others: the greedy one by a world's truth, and what was shown."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from contracts.datasets import read_dataset
from contracts.reading import Strict
from training.baselines.base import Oracle
from training.baselines.bounds import NoSettings
from training.comparison.cases import Case
from training.comparison.system import Slates, Trained
from training.data.batch import Batch
from training.evaluation.truth import world_of


class OracleSystem:
    """The greedy list by the simulated world's truth: a bound, made from the test slates."""

    name, about, is_gref, learns = Oracle.name, Oracle.paper, False, False
    code: tuple[str, ...] = ("training.baselines.bounds",)

    def fits(self, case: Case) -> bool:
        return case.world is not None

    def trials(self, case: Case, count: int) -> list[Strict]:
        return [NoSettings()]

    def fit(self, slates: Slates, settings: Strict, seed: int, folder: Path) -> Trained:
        return Trained(Oracle(world_of(read_dataset(slates.folder)[0]), slates.test))


class ExposedSystem:
    """The lists as they were shown: how good the order is that pre-training learns from."""

    name, about, is_gref, learns = "exposed", "production's lists, as logged", False, False
    code: tuple[str, ...] = ()

    def fits(self, case: Case) -> bool:
        return True

    def trials(self, case: Case, count: int) -> list[Strict]:
        return [NoSettings()]

    def fit(self, slates: Slates, settings: Strict, seed: int, folder: Path) -> Trained:
        return Trained(_Exposed(slates.test.exposed.shape[1]))


class _Exposed:
    parameters = 0
    epochs = 0

    def __init__(self, length: int) -> None:
        self.length = length

    def rerank(self, batch: Batch) -> Tensor:
        order = torch.full([batch.size, self.length], -1)
        order[:, : batch.exposed.size(1)] = batch.exposed
        return order
