"""A pointwise DNN that stands in for the previous ranking stage where the data has none.

It is trained on a slice of time before every list, so its scores hold no label of any list, and
the order that it gives depends on features alone, never on the order of exposure.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from contracts.reading import Strict

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class RankerSettings(Strict, kw_only=True, frozen=True):
    """Settings of the initial ranker.

    Attributes:
        width: of every embedding; hidden: widths of the layers above.
        id_decay: pull of embeddings towards 0, per step and row that the batch touches; it is
            what keeps rare ids from learning their few labels by heart.
    """

    width: int = 16
    hidden: tuple[int, ...] = (128, 64)
    dropout: float = 0.1
    learning_rate: float = 1e-3
    id_decay: float = 1e-4
    batch_size: int = 1024
    epochs: int = 2
    seed: int = 1


@dataclass(frozen=True)
class Rows:
    """N rows to score: categories [N, C] as codes from 0, numbers [N, E] (NaN is missing)."""

    categories: Ints
    numbers: Floats

    def __len__(self) -> int:
        return len(self.categories)


class InitialRanker(nn.Module):
    """Embeddings of every category, factorised interactions of them, and an MLP over all."""

    offset: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, sizes: list[int], numbers: int, settings: RankerSettings) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("offset", torch.tensor(np.r_[0, np.cumsum(sizes)[:-1]]))
        self.register_buffer("mean", torch.zeros(numbers))
        self.register_buffer("std", torch.ones(numbers))
        self.table = nn.Embedding(sum(sizes), settings.width)
        self.bias = nn.Embedding(sum(sizes), 1)
        nn.init.normal_(self.table.weight, std=0.01)
        nn.init.zeros_(self.bias.weight)
        widths = [len(sizes) * settings.width + 2 * numbers, *settings.hidden]
        layers: list[nn.Module] = []
        for left, right in pairwise(widths):
            layers += [nn.Linear(left, right), nn.ReLU(), nn.Dropout(settings.dropout)]
        self.mlp = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, codes_BC: Tensor, numbers_BE: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B], and the squared length of the embeddings used, for the decay."""
        rows = codes_BC + self.offset
        embedded = self.table(rows)
        missing = numbers_BE.isnan()
        scaled = ((numbers_BE - self.mean) / self.std).clamp(-5, 5).masked_fill(missing, 0.0)
        joined = torch.cat([embedded.flatten(1), scaled, missing.to(scaled.dtype)], dim=1)
        # sum over pairs of dot products, by ((sum)^2 - sum of squares) / 2
        pairs = embedded.sum(1).square().sum(1) - embedded.square().sum((1, 2))
        bias = self.bias(rows).sum((1, 2))
        logits = self.mlp(joined).squeeze(1) + 0.5 * pairs + bias
        return logits, embedded.square().sum((1, 2)).mean() + self.bias(rows).square().sum(1).mean()


def train_ranker(
    rows: Rows, labels: Floats, sizes: list[int], settings: RankerSettings
) -> InitialRanker:
    """Train on rows and binary labels [N]; ``sizes`` are the numbers of codes of each category."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        ranker = InitialRanker(sizes, rows.numbers.shape[1], settings)
        _fit_scale(ranker, rows.numbers)
        categories = torch.from_numpy(rows.categories)
        numbers = torch.from_numpy(rows.numbers.astype(np.float32))
        target = torch.from_numpy(labels.astype(np.float32))
        optimizer = torch.optim.Adam(ranker.parameters(), settings.learning_rate)
        steps = settings.epochs * -(-len(rows) // settings.batch_size)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, steps)
        ranker.train()
        for _ in range(settings.epochs):
            for batch in torch.split(torch.randperm(len(rows)), settings.batch_size):
                logits, length = ranker(categories[batch], numbers[batch])
                loss = nn.functional.binary_cross_entropy_with_logits(logits, target[batch])
                optimizer.zero_grad()
                (loss + settings.id_decay * length).backward()
                optimizer.step()
                schedule.step()
    return ranker.eval()


@torch.inference_mode()
def rank_scores(ranker: InitialRanker, rows: Rows, batch_size: int = 8192) -> Floats:
    """Logits [N]."""
    scores = [np.zeros(0, np.float32)]
    for first in range(0, len(rows), batch_size):
        part = slice(first, first + batch_size)
        codes = torch.from_numpy(rows.categories[part])
        numbers = torch.from_numpy(rows.numbers[part].astype(np.float32))
        scores.append(ranker(codes, numbers)[0].numpy())
    return np.concatenate(scores).astype(np.float64)


def area_under_curve(scores: Floats, labels: Floats) -> float:
    """ROC AUC by ranks, ties counted half; NaN where one class is absent."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positive = labels > 0
    wins, losses = int(positive.sum()), int((~positive).sum())
    if not wins or not losses:
        return float("nan")
    return float((ranks[positive].sum() - wins * (wins + 1) / 2) / (wins * losses))


def _fit_scale(ranker: InitialRanker, numbers: Floats) -> None:
    known = np.where(np.isfinite(numbers), numbers, np.nan)
    with np.errstate(all="ignore"):
        mean = np.nan_to_num(np.nanmean(known, axis=0)) if len(known) else 0
        std = np.nan_to_num(np.nanstd(known, axis=0)) if len(known) else 1
    ranker.mean.copy_(torch.as_tensor(mean))
    ranker.std.copy_(torch.as_tensor(np.where(std > 1e-6, std, 1.0)))
