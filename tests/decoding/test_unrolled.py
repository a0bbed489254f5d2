"""The engines' decode against the one that trains."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.model.tiny import lively_model, random_batch
from training.decoding.omtp import OmtpDecode
from training.decoding.rules import make_rules
from training.decoding.unrolled import UnrolledDecode
from training.engines.parity import seeded_rules


@pytest.mark.parametrize("n", [1, 3, 4, 5, 9])
@pytest.mark.parametrize(
    ("heads", "block", "layers"), [(4, None, 2), (4, 1, 2), (1, None, 1), (3, 2, 3), (8, None, 2)]
)
@pytest.mark.parametrize("cross", [True, False])
def test_lists_and_probabilities_are_those_of_omtp(
    n: int, heads: int, block: int | None, layers: int, cross: bool
) -> None:
    """Every length of the last block; rows with fewer candidates than n; rules, and sampling."""
    model = lively_model(heads, cross, decoder_layers=layers, pairwise=("colour",)).eval()
    ours = UnrolledDecode(model.decoder, n, block).eval()
    with torch.inference_mode():
        z, prior = model.encode(random_batch([12, 2, 7], seed=n))
        rules = make_rules(prior, *seeded_rules([0, 1, 2], n, z.size(1)))
        for temperature in (0.0, 0.8):
            given = (z, prior, torch.full((3, 1), temperature), torch.tensor([[5], [6], [7]]))
            for within in (None, rules):
                order, log_prob, passes = ours(*given, within)
                expected = OmtpDecode(model.decoder, n, block)(*given, within)
                assert order.tolist() == expected[0].tolist()
                torch.testing.assert_close(log_prob, expected[1], atol=1e-5, rtol=1e-4)
                assert passes.tolist() == expected[2].tolist()


def test_it_holds_no_graph_of_training() -> None:
    """What is made of the parameters is a copy: it can be copied on, and learns nothing."""
    made = copy.deepcopy(UnrolledDecode(lively_model(4).decoder, 6))
    assert not any(buffer.requires_grad for buffer in made.buffers())
