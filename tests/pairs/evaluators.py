"""An evaluator whose values tell items, positions, prefixes and rates apart."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from tests.model.tiny import SPEC
from training.data.batch import Batch
from training.pairs.evaluator import Evaluator
from training.settings import EvaluatorSettings


@lru_cache
def evaluator(discount: str = "none", candidate_layers: int = 0) -> Evaluator:
    """In eval mode. Cached: tests must not change it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = EvaluatorSettings(
            width=16,
            layers=2,
            attention_heads=2,
            discount=discount,
            candidate_layers=candidate_layers,
        )
        made = Evaluator(SPEC, settings)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
            for name, counted in made.named_buffers():
                if ".counts_" in name:
                    counted.copy_(torch.randint(1, 50, counted.shape))
                    sums = made.get_buffer(name.replace("counts_", "sums_"))
                    sums.copy_(counted * torch.rand_like(counted))
    return made.eval().requires_grad_(False)


def logits(batch: Batch, lists_BN: Tensor, candidate_layers: int = 0) -> Tensor:
    """What the evaluator expects of each position [B, N]."""
    made = evaluator(candidate_layers=candidate_layers)
    return made(made.items(batch), batch.item_cat, lists_BN)
