"""An evaluator whose values tell items, positions and prefixes apart."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from tests.model.tiny import SPEC
from training.data.batch import Batch
from training.pairs.evaluator import Evaluator
from training.settings import EvaluatorSettings


@lru_cache
def evaluator(discount: str = "none") -> Evaluator:
    """In eval mode. Cached: tests must not change it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = EvaluatorSettings(width=16, layers=2, attention_heads=2, discount=discount)
        made = Evaluator(SPEC, settings)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
    return made.eval().requires_grad_(False)


def logits(batch: Batch, lists_BN: Tensor) -> Tensor:
    """What the evaluator expects of each position [B, N]."""
    made = evaluator()
    return made(made.items(batch), batch.item_cat, lists_BN)
