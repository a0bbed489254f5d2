"""TorchScript engines, saved and loaded as serving does, against the eager modules."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.model.tiny import lively_model, random_batch
from training.decoding.run import Mode
from training.engines.parity import no_rules, seeded_rules
from training.engines.torchscript import (
    DECODER_FILE,
    ENCODER_FILE,
    eager_engines,
    load_engine,
    save_engines,
)

MODES = ("omtp", "one_at_a_time", "verified")


def rules_of(
    repeat: int, seeds: list[int], list_size: int, padded: int
) -> tuple[torch.Tensor, ...]:
    """Rules in every other call, so that both branches of the engine are compiled."""
    return (seeded_rules if repeat % 2 else no_rules)(seeds, list_size, padded)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("heads", "cross", "pairwise"),
    [(1, True, ()), (4, True, ("colour", "item")), (4, False, ("colour",)), (8, True, ())],
)
def test_engines_equal_eager(
    tmp_path: Path, mode: Mode, heads: int, cross: bool, pairwise: tuple[str, ...]
) -> None:
    """Batches of several shapes in a row: the second call of a shape runs optimised code."""
    model = lively_model(heads, cross, pairwise=pairwise)
    save_engines(model, tmp_path, mode)
    encoder, decoder = load_engine(tmp_path / ENCODER_FILE), load_engine(tmp_path / DECODER_FILE)
    eager_encoder, eager_decoder = eager_engines(model, mode)
    for repeat, counts in enumerate([[9, 2, 12], [9, 2, 12], [3], [9, 2, 12], [3]]):
        batch = random_batch(counts, seed=repeat)
        inputs = (
            batch.item_cat,
            batch.item_dense,
            batch.user_cat,
            batch.user_dense,
            batch.count.unsqueeze(1),
        )
        with torch.inference_mode():
            z, prior = encoder(*inputs)
            eager_z, eager_prior = eager_encoder(*inputs)
            torch.testing.assert_close(z, eager_z, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(prior, eager_prior)
            for temperature in (0.0,) if mode == "verified" else (0.0, 0.7):
                heat = torch.full([len(counts), 1], temperature)
                seeds = torch.arange(len(counts)).unsqueeze(1) - 1
                given = (heat, seeds, *rules_of(repeat, list(range(len(counts))), 6, z.size(1)))
                out = decoder(z, prior, *given)
                eager = eager_decoder(z, prior, *given)
                assert [x.dtype for x in out] == [
                    torch.int32,
                    torch.float32,
                    torch.int32,
                    torch.int32,
                ]
                assert out[0].tolist() == eager[0].tolist()
                torch.testing.assert_close(out[1], eager[1], atol=1e-4, rtol=1e-3)
                assert out[2].tolist() == eager[2].tolist()
                assert out[3].tolist() == eager[3].tolist()
