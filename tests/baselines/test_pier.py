"""PIER's permutations: which are kept, and how they are drawn."""

from __future__ import annotations

import torch

from tests.model.tiny import SPEC as RICH
from tests.model.tiny import random_batch
from training.baselines.pier import Pier, PierSettings


def test_pier_keeps_the_nearest_permutations_and_shows_the_best() -> None:
    torch.manual_seed(0)
    chosen = PierSettings(width=8, layers=1, attention_heads=2, pool=12, keep=4, bits=16)
    made = Pier(RICH, chosen).eval().requires_grad_(False)
    batch = random_batch([9, 3], seed=0)
    item, user = made.embed(batch)
    noise = torch.randn(12, 9, generator=torch.Generator().manual_seed(0))
    pool = made.draw(made.scores(item, user), batch.count, noise, 6)
    assert pool.shape == (2, 12, 6)
    assert all(sorted(one) == [-1, -1, -1, 0, 1, 2] for one in pool[1].tolist())
    whole, wanted = made.whole(item, pool), made.wanted(item, user, batch.count)
    near = made.nearest(whole, wanted)
    distance = ((whole @ made.planes > 0) != (wanted @ made.planes > 0)[:, None]).sum(-1)
    for row in range(2):
        kept = distance[row, near[row]]
        others = [int(distance[row, k]) for k in range(12) if k not in near[row].tolist()]
        assert len(kept) == 4
        assert int(kept.max()) <= min(others)
    # Values do not depend on which other lists are asked about.
    values = made.values(item, user, pool)
    torch.testing.assert_close(made.values(item, user, pool[:, 3:5]), values[:, 3:5])


def test_pier_draws_follow_plackett_luce() -> None:
    """First places of many draws against the softmax of the standardised scores."""
    torch.manual_seed(0)
    made = Pier(RICH, PierSettings(width=8, attention_heads=2, temperature=0.7))
    scores = torch.tensor([[1.0, 3.0, 2.0, 9.0]])
    noise = -torch.log(-torch.log(torch.rand(40_000, 4)))
    first = made.draw(scores, torch.tensor([3]), noise, 2)[0, :, 0]
    real = scores[0, :3]
    standard = (real - real.mean()) / (real.std(correction=0) + 1e-3)
    expected = (standard / 0.7).softmax(0)
    found = torch.bincount(first, minlength=3) / 40_000
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0)
