"""NAR4Rec's decoding and losses against plain ones."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.tiny import random_batch
from training.baselines.choosing import match_positions
from training.baselines.nar4rec_peer import contrastive_decode, likelihood_loss, list_gain

SEEDS = st.integers(0, 9999)


@settings(max_examples=30, deadline=None)
@given(m=st.integers(1, 6), padding=st.integers(0, 2), alpha=st.floats(0.0, 0.9), seed=SEEDS)
def test_contrastive_decoding_is_the_formula(m: int, padding: int, alpha: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, 4, m + padding, generator=generator)
    logits[:, :, m:] = -1e9
    z = torch.randn(1, m + padding, 5, generator=generator)
    found = contrastive_decode(logits, z, alpha)[0].tolist()
    unit = (z[0] / z[0].norm(dim=1, keepdim=True)).tolist()
    taken: list[int] = []
    for place in range(4):
        left = [j for j in range(m) if j not in taken]
        if not left:
            assert found[place] == -1
            continue
        total = sum(math.exp(logits[0, place, j]) for j in left)
        scores = {}
        for j in left:
            alike = max((sum(a * b for a, b in zip(unit[j], unit[i])) for i in taken), default=0.0)
            scores[j] = (1 - alpha) * math.exp(logits[0, place, j]) / total - alpha * alike
        best = max(scores.values())
        assert scores[found[place]] == pytest.approx(best, abs=1e-5)
        taken.append(found[place])


def test_without_contrast_it_is_the_matching_of_positions() -> None:
    logits = torch.randn(9, 4, 6, generator=torch.Generator().manual_seed(0))
    matched, _ = match_positions(logits, torch.zeros(9, 6))
    found = contrastive_decode(logits, torch.randn(9, 6, 3), 0.0)
    assert torch.equal(found, matched.long())


@given(requests=st.integers(1, 4), draws=st.integers(1, 4), alpha=st.floats(0.0, 0.9), seed=SEEDS)
def test_lists_decoded_together_are_those_decoded_alone(
    requests: int, draws: int, alpha: float, seed: int
) -> None:
    """All draws of all requests are one batch, as the peer decodes them."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(requests * draws, 4, 6, generator=generator)
    z = torch.randn(requests, 6, 3, generator=generator)
    logits[0, :, 5:] = -1e9
    together = contrastive_decode(logits, z.repeat_interleave(draws, 0), alpha)
    for number, found in enumerate(together):
        request = number // draws
        alone = contrastive_decode(logits[number : number + 1], z[request : request + 1], alpha)
        assert torch.equal(alone[0], found)


def test_contrast_pushes_like_items_apart() -> None:
    logits = torch.tensor([[[2.0, 1.9, 1.0]] * 2])
    z = torch.tensor([[[1.0, 0.0], [1.0, 0.01], [0.0, 1.0]]])
    assert contrastive_decode(logits, z, 0.0).tolist() == [[0, 1]]
    assert contrastive_decode(logits, z, 0.4).tolist() == [[0, 2]]


def test_unlikelihood_is_the_formula() -> None:
    batch = random_batch([5, 6], shown=[3, 2], seed=0)
    logits = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(1))
    good = torch.tensor([True, False])
    p = logits.softmax(-1)
    likely = sum(-math.log(p[0, k, batch.exposed[0, k]]) for k in range(3)) / 3
    unlikely = sum(-math.log(1 - p[1, k, batch.exposed[1, k]]) for k in range(2)) / 2
    found = likelihood_loss(logits, batch, good, 0.5)
    assert float(found) == pytest.approx((likely + 0.5 * unlikely) / 2, rel=1e-5)
    # A list that is certain must not blow up.
    certain = torch.full_like(logits, -50.0).scatter(2, batch.exposed.clamp(0)[..., None], 50.0)
    certain.requires_grad_()
    likelihood_loss(certain, batch, ~good, 1.0).backward()
    assert torch.isfinite(certain.grad).all()


def test_the_gain_of_a_list_is_discounted() -> None:
    exposed = torch.tensor([[4, 2, 1], [0, 3, -1]])
    utility = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
    expected = [1 / math.log2(3) + 1 / math.log2(4), 1.0]
    assert list_gain(exposed, utility).tolist() == pytest.approx(expected)
