"""Small networks of training/baselines whose choices follow from the content."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor, nn

from tests.model.tiny import SPEC, model_settings
from training.baselines.dnn import Dnn
from training.baselines.nar4rec import Nar4Rec
from training.baselines.prm import Prm
from training.baselines.seq2slate import Seq2Slate, Seq2SlateTransformer
from training.data.batch import Batch

KINDS: dict[str, Callable[..., nn.Module]] = {
    "dnn": Dnn,
    "prm": Prm,
    "nar4rec": Nar4Rec,
    "seq2slate": Seq2Slate,
    "seq2slate_transformer": Seq2SlateTransformer,
}


@lru_cache(maxsize=32)
def network(kind: str, **options: int) -> nn.Module:
    """In eval mode; cached, so tests must not change it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = KINDS[kind](SPEC, model_settings(), **options)
        with torch.no_grad():
            for parameter in made.parameters():
                # Biases and norms too: what is 0 or 1 at first must not hide a fault.
                parameter += 0.3 * torch.randn_like(parameter)
    return made.eval().requires_grad_(False)


def inputs_of(batch: Batch) -> tuple[Tensor, ...]:
    """The five tensors of the encoder engine."""
    return (
        batch.item_cat,
        batch.item_dense,
        batch.user_cat,
        batch.user_dense,
        batch.count.unsqueeze(1),
    )
