"""Decoded lists against the decoder in loops, and what every list must be."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from tests.model.plain_decoder import PlainDecoder
from tests.model.tiny import cold, lively_model, one_row, padded, random_batch
from training.decoding.omtp import OmtpDecode
from training.decoding.run import Mode, make_decode
from training.decoding.verified import VerifiedDecode
from training.losses.likelihood import list_log_probs
from training.model.gen_reranker import GenReranker

HEADS = (1, 2, 4, 8)
models = st.builds(
    lively_model,
    heads=st.sampled_from(HEADS),
    cross_attention=st.booleans(),
    prior=st.sampled_from(("none", "position")),
    seed=st.integers(0, 1),
    pairwise=st.sampled_from(((), ("colour",), ("colour", "item"))),
)
sizes = st.lists(st.integers(1, 12), min_size=1, max_size=4)
list_sizes = st.integers(1, 10)
batch_seeds = st.integers(0, 2**31)
temperatures = st.sampled_from((0.0, 0.5, 1.0, 3.0))


def heat_and_seeds(batch: int, temperature: float, seed: int) -> tuple[Tensor, Tensor]:
    return torch.full([batch, 1], temperature), torch.arange(seed, seed + batch).unsqueeze(1)


def assert_permutations(order: Tensor, counts: list[int]) -> None:
    n = order.size(1)
    for row, m in zip(order.tolist(), counts):
        real = row[: min(m, n)]
        assert len(set(real)) == len(real)
        assert all(0 <= item < m for item in real)
        assert row[min(m, n) :] == [-1] * (n - len(real))


@settings(max_examples=60)
@given(models, sizes, list_sizes, batch_seeds, temperatures, st.integers(0, 6))
def test_a_list_is_a_permutation_in_the_promised_passes(
    model: GenReranker, counts: list[int], n: int, seed: int, temperature: float, more: int
) -> None:
    """Distinct candidates of the request, then -1 once all are shown; log_prob 0 there."""
    z, prior = model.encode(padded(random_batch(counts, seed=seed), more))
    heat = heat_and_seeds(len(counts), temperature, seed)
    for block in range(1, model.settings.heads + 1):
        order, log_prob, passes = OmtpDecode(model.decoder, n, block)(z, prior, *heat)
        assert (order.dtype, log_prob.dtype, passes.dtype) == (
            torch.int32,
            torch.float32,
            torch.int32,
        )
        assert_permutations(order, counts)
        assert passes.tolist() == [[math.ceil(n / block)]] * len(counts)
        assert (log_prob[order < 0] == 0).all()
        assert (log_prob <= 1e-6).all()


@settings(max_examples=50)
@given(models, sizes, list_sizes, batch_seeds, st.booleans(), st.integers(0, 5))
def test_cached_decoding_is_greedy_by_the_decoder_in_loops(
    model: GenReranker, counts: list[int], n: int, seed: int, one_at_a_time: bool, more: int
) -> None:
    """Item by item, everything recomputed: each choice is the best one left, and its log_prob."""
    block = 1 if one_at_a_time else model.settings.heads
    batch = padded(random_batch(counts, seed=seed), more)
    z, prior = model.encode(batch)
    order, log_prob, _ = OmtpDecode(model.decoder, n, block)(z, prior, *cold(len(counts)))
    for row, m in enumerate(counts):
        plain = PlainDecoder(model, z[row], prior[row], m)
        y = order[row].tolist()[: min(m, n)]
        for k, item in enumerate(y):
            start = k // block * block
            expected = plain.log_prob(y[:start], k - start + 1, y[:k])
            # Two candidates may tie within rounding; no other may be better.
            assert expected[item] >= expected.max() - 1e-4
            assert float(log_prob[row, k]) == pytest.approx(expected[item], abs=1e-3)


@settings(max_examples=50)
@given(models, sizes, list_sizes, batch_seeds, temperatures, st.booleans(), st.integers(0, 9))
def test_a_request_gets_its_list_alone_in_a_batch_and_padded_wider(
    model: GenReranker,
    counts: list[int],
    n: int,
    seed: int,
    temperature: float,
    one_at_a_time: bool,
    more: int,
) -> None:
    """Draws too: a request's seed gives its list, whatever the server batches it with."""
    batch = random_batch(counts, seed=seed)
    heat, seeds = heat_and_seeds(len(counts), temperature, seed)
    decode = OmtpDecode(model.decoder, n, 1 if one_at_a_time else None)
    order, log_prob, _ = decode(*model.encode(batch), heat, seeds)
    wide = decode(*model.encode(padded(batch, more)), heat, seeds)
    assert wide[0].tolist() == order.tolist()
    torch.testing.assert_close(wide[1], log_prob, atol=1e-4, rtol=1e-3)
    for row in range(len(counts)):
        alone = one_row(batch, row)
        one, one_log_prob, _ = decode(
            *model.encode(alone), heat[row : row + 1], seeds[row : row + 1]
        )
        assert one[0].tolist() == order[row].tolist()
        torch.testing.assert_close(one_log_prob[0], log_prob[row], atol=1e-4, rtol=1e-3)


@settings(max_examples=60)
@given(models, sizes, list_sizes, batch_seeds, st.integers(0, 5))
def test_verified_is_one_at_a_time_in_no_more_passes(
    model: GenReranker, counts: list[int], n: int, seed: int, more: int
) -> None:
    z, prior = model.encode(padded(random_batch(counts, seed=seed), more))
    order, log_prob, passes = VerifiedDecode(model.decoder, n)(z, prior, *cold(len(counts)))
    slow_order, slow_log_prob, slow_passes = OmtpDecode(model.decoder, n, 1)(
        z, prior, *cold(len(counts))
    )
    assert order.tolist() == slow_order.tolist()
    torch.testing.assert_close(log_prob, slow_log_prob, atol=1e-4, rtol=1e-3)
    assert (order.dtype, log_prob.dtype, passes.dtype) == (
        torch.int32,
        torch.float32,
        torch.int32,
    )
    assert (passes <= slow_passes).all()
    fewest = 1 + math.ceil((n - 1) / model.settings.heads)
    assert (passes >= fewest).all()


def steered(heads: int, agree: bool) -> GenReranker:
    """A policy whose scores do not depend on the prefix: head 1 likes high indices, the others
    the same, or low ones. Made for Z of ``steering_z``."""
    model = GenReranker(lively_model(heads).spec, lively_model(heads).settings)
    width = model.settings.width
    with torch.no_grad():
        model.decoder.query.weight.zero_()
        like = torch.arange(width, dtype=torch.float32)
        for head in range(heads):
            same = agree or head == 0
            part = slice(head * width, (head + 1) * width)
            model.decoder.query.bias[part] = like if same else -like
    return model.eval()


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("n", [1, 2, 4, 5, 9, 10])
def test_verified_passes_are_as_few_as_agreement_allows(heads: int, n: int) -> None:
    """Heads in full agreement: one pass, then H items each. Heads that never agree: n passes."""
    z = torch.eye(16).unsqueeze(0)  # 16 candidates, told apart by one coordinate each
    prior = torch.zeros(1, 16)
    best = [list(range(15, 15 - n, -1))]
    order, _, passes = VerifiedDecode(steered(heads, True).decoder, n)(z, prior, *cold(1))
    assert order.tolist() == best
    assert int(passes) == 1 + math.ceil((n - 1) / heads)
    order, _, passes = VerifiedDecode(steered(heads, False).decoder, n)(z, prior, *cold(1))
    assert order.tolist() == best
    assert int(passes) == n


def test_verified_counts_the_passes_of_each_row() -> None:
    """A row is done when its list is full, whatever the others still need."""
    model = lively_model(4)
    batch = random_batch([12] * 30, seed=8)
    z, prior = model.encode(batch)
    decode = VerifiedDecode(model.decoder, 10)
    _, _, together = decode(z, prior, *cold(30))
    alone = [int(decode(z[i : i + 1], prior[i : i + 1], *cold(1))[2]) for i in range(30)]
    assert together.flatten().tolist() == alone
    assert len(set(alone)) > 1


def test_verified_refuses_a_temperature() -> None:
    model = lively_model(4)
    z, prior = model.encode(random_batch([5]))
    with pytest.raises(ValueError, match="temperature must be 0"):
        VerifiedDecode(model.decoder, 3)(z, prior, *heat_and_seeds(1, 0.5, 1))


@pytest.mark.parametrize("block", [0, 5, -1])
def test_a_block_beyond_the_heads_is_refused(block: int) -> None:
    with pytest.raises(ValueError, match="1 to 4"):
        OmtpDecode(lively_model(4).decoder, 3, block)


@settings(max_examples=50)
@given(models, sizes, list_sizes, batch_seeds, temperatures, st.booleans())
def test_what_is_served_is_what_is_trained(
    model: GenReranker,
    counts: list[int],
    n: int,
    seed: int,
    temperature: float,
    one_at_a_time: bool,
) -> None:
    """log_prob of decoding is list_log_probs of block_logits under teacher forcing."""
    z, prior = model.encode(random_batch(counts, seed=seed))
    block = 1 if one_at_a_time else model.settings.heads
    heat = heat_and_seeds(len(counts), temperature, seed)
    order, log_prob, _ = OmtpDecode(model.decoder, n, block)(z, prior, *heat)
    logits = model.block_logits(z, prior, order.long(), block)
    trained = list_log_probs(logits / (temperature or 1.0), order.long())
    torch.testing.assert_close(log_prob, trained, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.0])
@pytest.mark.parametrize("heads", [1, 2])
def test_frequencies_of_draws_are_the_probabilities_of_lists(
    heads: int, temperature: float
) -> None:
    """20,000 seeds, all 24 lists of 3 out of 4: chi-square against the product of Eq. 1."""
    model, draws = lively_model(heads), 20_000
    z, prior = model.encode(random_batch([4], seed=6))
    order, _, _ = OmtpDecode(model.decoder, 3)(
        z.expand(draws, -1, -1), prior.expand(draws, -1), *heat_and_seeds(draws, temperature, 0)
    )
    lists = list(permutations(range(4), 3))
    logits = model.block_logits(z.expand(24, -1, -1), prior.expand(24, -1), torch.tensor(lists))
    p = list_log_probs(logits / temperature, torch.tensor(lists)).sum(1).double().exp().numpy()
    assert p.sum() == pytest.approx(1, abs=1e-5)
    drawn = [tuple(row) for row in order.tolist()]
    observed = np.array([drawn.count(one) for one in lists])
    common = p * draws >= 5
    observed = np.append(observed[common], observed[~common].sum())
    expected = np.append(p[common], p[~common].sum()) * draws
    if expected[-1] < 5:  # too rare to test on its own
        observed = np.append(observed[:-2], observed[-2:].sum())
        expected = np.append(expected[:-2], expected[-2:].sum())
    assert len(expected) > 3
    assert stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-3


def test_draws_repeat_by_seed_and_differ_between_seeds() -> None:
    model = lively_model(4)
    z, prior = model.encode(random_batch([12], seed=4))
    z, prior = z.expand(50, -1, -1), prior.expand(50, -1)
    heat, seeds = heat_and_seeds(50, 2.0, 100)
    decode = OmtpDecode(model.decoder, 6)
    order, _, _ = decode(z, prior, heat, seeds)
    assert order.tolist() == decode(z, prior, heat, seeds)[0].tolist()
    assert len({tuple(row) for row in order.tolist()}) > 25
    same = decode(z, prior, heat, torch.full_like(seeds, 7))[0]
    assert len({tuple(row) for row in same.tolist()}) == 1


@pytest.mark.parametrize("temperature", [1e-3, 1e-6, 1e-30, 1e-44])
def test_cold_draws_are_greedy(temperature: float) -> None:
    model = lively_model(4)
    z, prior = model.encode(random_batch([12] * 20, seed=9))
    decode = OmtpDecode(model.decoder, 8)
    greedy = decode(z, prior, *cold(20))[0]
    drawn, log_prob, _ = decode(z, prior, *heat_and_seeds(20, temperature, 3))
    assert (drawn == greedy).float().mean() > 0.98  # a tie within the temperature may fall apart
    assert torch.isfinite(log_prob).all()


@pytest.mark.parametrize("temperature", [1e4, 1e9, 1e30, math.inf])
def test_hot_draws_are_uniform_lists_and_still_permutations(temperature: float) -> None:
    """A temperature may be as high as it likes: chosen and padded items stay out."""
    model, draws = lively_model(4), 6000
    z, prior = model.encode(padded(random_batch([5], seed=9), 4))
    z, prior = z.expand(draws, -1, -1), prior.expand(draws, -1)
    order, log_prob, _ = OmtpDecode(model.decoder, 7)(
        z, prior, *heat_and_seeds(draws, temperature, 0)
    )
    assert_permutations(order, [5] * draws)
    first = np.bincount(order[:, 0].numpy(), minlength=5)
    assert stats.chisquare(first).pvalue > 1e-3
    uniform = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0]).log().neg()
    torch.testing.assert_close(log_prob[0, :5], uniform, atol=1e-2, rtol=0)


def test_the_largest_list_and_the_most_candidates_decode() -> None:
    """64 of 512, the limits of the feature spec; lists longer than the candidates, too."""
    model = lively_model(8)
    z, prior = model.encode(random_batch([512, 3], seed=1))
    for block in (1, 8):
        order, _, _ = OmtpDecode(model.decoder, 64, block)(z, prior, *cold(2))
        assert_permutations(order, [512, 3])
    order, _, _ = VerifiedDecode(model.decoder, 64)(z, prior, *cold(2))
    assert_permutations(order, [512, 3])


@pytest.mark.parametrize(
    ("mode", "kind", "block"),
    [("omtp", OmtpDecode, 4), ("one_at_a_time", OmtpDecode, 1), ("verified", VerifiedDecode, 4)],
)
def test_modes_by_name(mode: Mode, kind: type, block: int) -> None:
    decode = make_decode(lively_model(4), 6, mode)
    assert isinstance(decode, kind)
    assert not decode.training
    assert getattr(decode, "block", 4) == block
