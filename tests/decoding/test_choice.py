"""The counter-based noise and the choice of one item."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from training.decoding.choice import _mix, block, choose, gumbel, gumbel_lists
from training.model.layers import BLOCKED

MASK = (1 << 64) - 1
int64 = st.integers(-(2**63), 2**63 - 1)


def splitmix64_finaliser(x: int) -> int:
    """Steele, Lea and Flood 2014, in Python's unbounded integers."""
    x &= MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


@given(st.lists(int64, min_size=1, max_size=20))
def test_mix_is_the_finaliser_of_splitmix64(values: list[int]) -> None:
    mixed = _mix(torch.tensor(values, dtype=torch.int64)).tolist()
    assert [x & MASK for x in mixed] == [splitmix64_finaliser(x) for x in values]


def test_splitmix64_reference_stream() -> None:
    """The published first outputs of SplitMix64 from state 1234567 (Vigna's reference code)."""
    gamma = 0x9E3779B97F4A7C15
    states = [(1234567 + step * gamma) & MASK for step in (1, 2, 3)]
    signed = torch.tensor([x - (1 << 64) if x >> 63 else x for x in states])
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [x & MASK for x in _mix(signed).tolist()] == published


def test_noise_is_gumbel() -> None:
    noise = gumbel(torch.arange(2000).unsqueeze(1), 3, 50)
    assert noise.dtype == torch.float32
    assert torch.isfinite(noise).all()
    assert stats.kstest(noise.flatten().numpy(), stats.gumbel_r.cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    "seeds", [torch.arange(4000), torch.arange(4000) * 64, -torch.arange(4000)]
)
def test_noise_is_independent_of_neighbouring_steps_seeds_and_candidates(
    seeds: torch.Tensor,
) -> None:
    """Regular seeds, as people and loops give them, must not give regular lists."""
    first, second = (gumbel(seeds.unsqueeze(1), step, 8).numpy() for step in (0, 1))
    pairs = {
        "step": (first.ravel(), second.ravel()),
        "seed": (first[:-1].ravel(), first[1:].ravel()),
        "candidate": (first[:, :-1].ravel(), first[:, 1:].ravel()),
    }
    for name, (x, y) in pairs.items():
        assert stats.spearmanr(x, y).pvalue > 1e-4, name
    assert len(np.unique(first)) > 0.99 * first.size


@given(int64, st.integers(0, 63), st.integers(1, 40), st.integers(0, 20))
def test_noise_depends_on_seed_step_and_candidate_alone(
    seed: int, step: int, candidates: int, more: int
) -> None:
    alone = gumbel(torch.tensor([[seed]]), step, candidates)
    among = gumbel(torch.tensor([[5], [seed], [-1]]), step, candidates + more)
    assert torch.equal(among[1:2, :candidates], alone)


@given(int64, st.integers(1, 12), st.integers(1, 40))
def test_noise_of_a_list_is_that_of_its_steps(seed: int, places: int, candidates: int) -> None:
    seeds = torch.tensor([[seed], [3]])
    steps = [gumbel(seeds, step, candidates) for step in range(places)]
    assert torch.equal(gumbel_lists(seeds, places, candidates), torch.stack(steps, 1))


def test_noise_has_no_infinite_value_at_the_ends_of_the_generator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The largest and the smallest output of the generator, which no seed search would find."""
    import training.decoding.choice as choice

    monkeypatch.setattr(choice, "_mix", lambda x: torch.full_like(x, -1))  # all 64 bits set
    assert torch.isfinite(choice.gumbel(torch.tensor([[0]]), 0, 3)).all()
    monkeypatch.setattr(choice, "_mix", torch.zeros_like)
    assert torch.isfinite(choice.gumbel(torch.tensor([[0]]), 0, 3)).all()


scores = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=12)


@given(scores, st.data())
def test_greedy_takes_the_best_free_candidate(values: list[float], data: st.DataObject) -> None:
    free = data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    row = torch.tensor([[v if ok else v + BLOCKED for v, ok in zip(values, free)]])
    cold = torch.zeros(1, 1)
    item, log_prob = choose(row, cold)
    allowed = [(v, -i) for i, (v, ok) in enumerate(zip(values, free)) if ok]
    if not allowed:
        assert (int(item), float(log_prob)) == (-1, 0.0)
        return
    best, index = max(allowed)
    assert int(item) == -index
    expected = best - math.log(sum(math.exp(v) for v, _ in allowed))
    assert float(log_prob) == pytest.approx(expected, abs=1e-4)


@given(
    scores,
    st.data(),
    st.sampled_from((1e-45, 1e-38, 1e-6, 0.3, 1.0, 50.0, 1e6, 1e9, 1e20, 3e38, math.inf)),
    int64,
)
def test_sampling_at_any_temperature_takes_a_free_candidate(
    values: list[float], data: st.DataObject, temperature: float, seed: int
) -> None:
    """However odd the temperature: never a chosen or padded item, never a hole, never NaN."""
    free = data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    row = torch.tensor([[v if ok else v + BLOCKED for v, ok in zip(values, free)]])
    noise = gumbel(torch.tensor([[seed]]), 0, len(values))
    item, log_prob = choose(row, torch.tensor([[temperature]]), noise)
    if not any(free):
        assert (int(item), float(log_prob)) == (-1, 0.0)
        return
    assert int(item) >= 0
    assert free[int(item)]
    assert math.isfinite(float(log_prob))
    assert float(log_prob) <= 1e-6


@given(scores, int64)
def test_log_prob_of_a_draw_is_under_its_temperature(values: list[float], seed: int) -> None:
    temperature = 2.5
    item, log_prob = choose(
        torch.tensor([values]),
        torch.tensor([[temperature]]),
        gumbel(torch.tensor([[seed]]), 1, len(values)),
    )
    scaled = [v / temperature for v in values]
    expected = scaled[int(item)] - math.log(sum(map(math.exp, scaled)))
    assert float(log_prob) == pytest.approx(expected, abs=1e-4)


def test_rows_of_one_batch_may_be_greedy_and_sampled() -> None:
    row = torch.tensor([[0.0, 0.2, 0.1]]).expand(4000, 3)
    heat = torch.zeros(4000, 1)
    heat[2000:] = 1.0
    item, log_prob = choose(row, heat, gumbel(torch.arange(4000).unsqueeze(1), 0, 3))
    assert (item[:2000] == 1).all()
    assert set(item[2000:].tolist()) == {0, 1, 2}
    torch.testing.assert_close(log_prob, row.log_softmax(1).gather(1, item.unsqueeze(1))[:, 0])


def test_block_takes_items_out_and_leaves_the_rest() -> None:
    bias = torch.tensor([[0.5, -1.0, 2.0], [0.0, BLOCKED, BLOCKED]])
    after = block(bias, torch.tensor([2, 0]))
    assert after.tolist() == [[0.5, -1.0, BLOCKED], [BLOCKED, BLOCKED, BLOCKED]]
    assert bias[0, 2] == 2.0
    exhausted = block(after, torch.tensor([0, -1]))
    assert exhausted.tolist() == [[BLOCKED, -1.0, BLOCKED], [BLOCKED] * 3]
