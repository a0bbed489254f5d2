"""Small policies and random requests for the tests of model, decoding, losses and pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from contracts.features import Categorical, Dense, FeatureGroup, FeatureSpec, FeedbackKind
from training.data.batch import Batch
from training.model.gen_reranker import GenReranker
from training.settings import ModelSettings

SPEC = FeatureSpec(
    user=FeatureGroup(
        categorical=(Categorical(name="user", buckets=30, width=4),), dense=(Dense(name="age"),)
    ),
    item=FeatureGroup(
        categorical=(
            Categorical(name="item", buckets=60, width=4),
            Categorical(name="colour", vocabulary=("red", "green", "blue"), width=4),
        ),
        dense=(Dense(name="score"), Dense(name="price", transform="log1p")),
    ),
    list_size=6,
    candidate_buckets=(8, 16, 64),
    feedback=(
        FeedbackKind(kind="click", type="binary"),
        FeedbackKind(kind="watch", type="continuous"),
    ),
    utility="click",
)


def model_settings(**changes: Any) -> ModelSettings:
    small = {
        "width": 16,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "attention_heads": 2,
    }
    return ModelSettings(**{**small, **changes})


@lru_cache(maxsize=64)
def lively_model(
    heads: int = 4,
    cross_attention: bool = True,
    prior: str = "position",
    seed: int = 0,
    pairwise: tuple[str, ...] = (),
    decoder_layers: int = 2,
) -> GenReranker:
    """A policy in eval mode whose choices follow from content and prefix, not from the prior alone.

    Cached: tests must not change it.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        settings = model_settings(
            heads=heads,
            cross_attention=cross_attention,
            prior=prior,
            pairwise=pairwise,
            decoder_layers=decoder_layers,
        )
        model = GenReranker(SPEC, settings)
        with torch.no_grad():
            for parameter in model.parameters():
                # Biases, norms and tables too: what is 0 or 1 at first must not hide a fault.
                parameter += 0.1 * torch.randn_like(parameter)
            model.encoder.position_prior *= 0.3
            model.decoder.query.weight.normal_(std=0.4)
            model.decoder.token.weight.normal_(std=0.5)
            model.encoder.item.tables[0].weight.normal_(std=1.0)
            if model.encoder.pair is not None:
                model.encoder.pair.scale.fill_(-0.5)
    return model.eval().requires_grad_(False)


def random_batch(
    counts: Sequence[int], shown: Sequence[int] | None = None, seed: int = 0, pad_to: int = 0
) -> Batch:
    """Requests with these numbers of candidates, and lists of these lengths shown (all if left)."""
    rng = np.random.default_rng(seed)
    shown = counts if shown is None else shown
    rows, width, length = len(counts), max(max(counts), pad_to), max(1, max(shown))
    item_cat = np.zeros((rows, width, 2), np.int32)
    item_dense = np.zeros((rows, width, 4), np.float32)
    exposed = np.full((rows, length), -1, np.int64)
    for row, (m, n) in enumerate(zip(counts, shown)):
        item_cat[row, :m] = rng.integers(0, [62, 5], (m, 2))
        item_dense[row, :m] = rng.normal(size=(m, 4))
        exposed[row, :n] = rng.permutation(m)[:n]
    listed = exposed >= 0
    click = (rng.random((rows, length)) < 0.4) & listed
    watch = rng.exponential(10, (rows, length)) * listed
    arrays = {
        "item_cat": item_cat,
        "item_dense": item_dense,
        "user_cat": rng.integers(0, 32, (rows, 1)).astype(np.int32),
        "user_dense": rng.normal(size=(rows, 2)).astype(np.float32),
        "count": np.array(counts, np.int32),
        "exposed": exposed,
        "utility": click.astype(np.float32),
        "feedback": np.stack([click, watch], -1).astype(np.float32),
        "row": np.arange(rows),
    }
    return Batch(**{name: torch.from_numpy(value) for name, value in arrays.items()})


def one_row(batch: Batch, row: int) -> Batch:
    """A request alone, with its own padding: as the batch of one that serving would send."""
    m = int(batch.count[row])
    n = max(1, int((batch.exposed[row] >= 0).sum()))
    parts = {f.name: getattr(batch, f.name)[row : row + 1] for f in fields(batch)}
    for name in ("item_cat", "item_dense"):
        parts[name] = parts[name][:, :m]
    for name in ("exposed", "utility", "feedback"):
        parts[name] = parts[name][:, :n]
    return Batch(**parts)


def padded(batch: Batch, more: int) -> Batch:
    """The same requests with more padding, filled with rubbish that nothing may look at."""
    parts = {f.name: getattr(batch, f.name) for f in fields(batch)}
    size = batch.item_cat.shape
    parts["item_cat"] = torch.cat(
        [batch.item_cat, torch.full([size[0], more, size[2]], 3, dtype=torch.int32)], dim=1
    )
    parts["item_dense"] = torch.cat(
        [batch.item_dense, torch.full([size[0], more, batch.item_dense.size(2)], 7.5)], dim=1
    )
    return Batch(**parts)


def cold(batch_size: int) -> tuple[Tensor, Tensor]:
    """TEMPERATURE and SEED of greedy decoding."""
    return torch.zeros(batch_size, 1), torch.zeros(batch_size, 1, dtype=torch.int64)
