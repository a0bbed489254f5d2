"""What holds of the policy whatever its weights: symmetries, padding, causality, its start."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.reading import ContractError
from tests.model.plain_decoder import PlainDecoder
from tests.model.tiny import (
    SPEC,
    cold,
    lively_model,
    model_settings,
    one_row,
    padded,
    random_batch,
)
from training.decoding.omtp import OmtpDecode
from training.model.gen_reranker import GenReranker
from training.model.layers import BLOCKED
from training.model.softening import soften

HEADS = (1, 2, 4, 8)
models = st.builds(
    lively_model,
    heads=st.sampled_from(HEADS),
    cross_attention=st.booleans(),
    prior=st.sampled_from(("none", "position")),
    seed=st.integers(0, 1),
    pairwise=st.sampled_from(((), ("colour",), ("colour", "item"))),
)
counts = st.lists(st.integers(1, 12), min_size=1, max_size=4)


@settings(max_examples=40)
@given(models, st.integers(2, 12), st.integers(0, 2**31))
def test_permuted_candidates_give_the_permuted_list(model: GenReranker, m: int, seed: int) -> None:
    """Candidates are a set with positions: the order in memory must not matter."""
    batch = random_batch([m, m], seed=seed)
    permutation = torch.from_numpy(np.random.default_rng(seed).permutation(m))
    place = torch.arange(m).expand(2, m)
    features = batch.user_cat, batch.user_dense, batch.count
    z, prior = model.encoder(batch.item_cat, batch.item_dense, *features, place)
    z_permuted, prior_permuted = model.encoder(
        batch.item_cat[:, permutation],
        batch.item_dense[:, permutation],
        *features,
        place[:, permutation],
    )
    torch.testing.assert_close(z_permuted, z[:, permutation], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(prior_permuted, prior[:, permutation])
    decode = OmtpDecode(model.decoder, 6)
    order, log_prob, _ = decode(z, prior, *cold(2))
    again, log_prob_again, _ = decode(z_permuted, prior_permuted, *cold(2))
    mapped = torch.where(again < 0, -1, permutation[again.clamp(min=0).long()])
    assert mapped.tolist() == order.tolist()
    torch.testing.assert_close(log_prob_again, log_prob, atol=1e-4, rtol=1e-4)


@settings(max_examples=40)
@given(models, counts, st.floats(0.5, 8.0), st.integers(0, 2**31))
def test_a_softened_policy_has_the_same_lists_and_its_logits_divided(
    model: GenReranker, sizes: list[int], by: float, seed: int
) -> None:
    batch = random_batch(sizes, seed=seed)
    softer = copy.deepcopy(model)
    soften(softer, by)
    logits = model.block_logits(*model.encode(batch), batch.exposed)
    scaled = softer.block_logits(*softer.encode(batch), batch.exposed)
    free = logits > BLOCKED / 2
    torch.testing.assert_close(scaled[free], logits[free] / by, atol=1e-5, rtol=1e-4)
    assert torch.equal(scaled > BLOCKED / 2, free), "what was padding is padding"
    size = len(sizes)
    lists = OmtpDecode(model.decoder, 6)(*model.encode(batch), *cold(size))[0]
    assert torch.equal(lists, OmtpDecode(softer.decoder, 6)(*softer.encode(batch), *cold(size))[0])


def test_positions_are_told_apart() -> None:
    """The same candidates from the previous stage in another order are another request."""
    model = lively_model()
    batch = random_batch([6], seed=3)
    flipped = replace(batch, item_cat=batch.item_cat.flip(1), item_dense=batch.item_dense.flip(1))
    assert not torch.allclose(model.encode(batch)[0], model.encode(flipped)[0].flip(1), atol=1e-3)


@settings(max_examples=40)
@given(models, counts, st.integers(0, 20), st.integers(0, 2**31))
def test_a_request_is_answered_alike_alone_in_a_batch_and_padded_wider(
    model: GenReranker, sizes: list[int], more: int, seed: int
) -> None:
    batch = random_batch(sizes, seed=seed)
    z, prior = model.encode(batch)
    logits = model.block_logits(z, prior, batch.exposed)
    wide_z, wide_prior = model.encode(padded(batch, more))
    wide_logits = model.block_logits(wide_z, wide_prior, batch.exposed)
    for row, m in enumerate(sizes):
        alone = one_row(batch, row)
        alone_z, alone_prior = model.encode(alone)
        alone_logits = model.block_logits(alone_z, alone_prior, alone.exposed)[0]
        for other_z, other_prior, other_logits in (
            (z, prior, logits),
            (wide_z, wide_prior, wide_logits),
        ):
            torch.testing.assert_close(other_z[row, :m], alone_z[0], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(other_prior[row, :m], alone_prior[0])
            torch.testing.assert_close(
                other_logits[row, :m, :m], alone_logits, atol=1e-4, rtol=1e-4
            )
            assert (other_prior[row, m:] <= BLOCKED).all()


@settings(max_examples=25)
@given(models, st.integers(2, 10), st.data())
def test_a_hidden_state_does_not_see_later_items(
    model: GenReranker, m: int, data: st.DataObject
) -> None:
    batch = random_batch([m], seed=m)
    z, prior = model.encode(batch)
    t = data.draw(st.integers(0, m - 1))
    other = batch.exposed.clone()
    # Teacher forcing feeds y_1 .. y_{N-1}: h_t has seen the first t of them.
    other[0, t:] = other[0, t:].flip(0)
    before = model.hidden(z, prior, batch.exposed)
    after = model.hidden(z, prior, other)
    assert torch.equal(before[:, : t + 1], after[:, : t + 1])
    if m - t >= 2 and t + 1 < m:  # y_{t+1} differs, and h_{t+1} has seen it
        assert not torch.allclose(before[:, t + 1], after[:, t + 1], atol=1e-5)


@settings(max_examples=30)
@given(models, st.integers(1, 9), st.integers(0, 2**31))
def test_logits_are_those_of_the_paper(model: GenReranker, m: int, seed: int) -> None:
    """Every head at every step against the decoder written in loops."""
    batch = padded(random_batch([m], seed=seed), 3)
    z, prior = model.encode(batch)
    plain = PlainDecoder(model, z[0], prior[0], m)
    lists = batch.exposed
    y = lists[0].tolist()
    close = {"atol": 3e-4, "rtol": 1e-3}
    whole, of_prefix = (one[0, :, :, :m].numpy() for one in model.window_logits(z, prior, lists))
    heads = model.settings.heads
    for t in range(m):
        for head in range(1, heads + 1):
            expected = plain.logits(y[:t], head, y[: t + head - 1])
            if t + head <= m:  # beyond the list there is nothing to predict
                np.testing.assert_allclose(whole[t, head - 1], expected, **close)
            expected = plain.logits(y[:t], head, y[:t], later=head - 1)
            np.testing.assert_allclose(of_prefix[t, head - 1], expected, **close)
    for block in {1, heads}:
        logits = model.block_logits(z, prior, lists, block)[0, :, :m].numpy()
        for k in range(m):
            start = k // block * block
            expected = plain.logits(y[:start], k - start + 1, y[:k])
            np.testing.assert_allclose(logits[k], expected, **close)


def test_cross_attention_is_a_real_choice() -> None:
    """Without it the decoder knows the candidates by its own prefix alone."""
    batch = random_batch([5], seed=1)
    other = replace(batch, item_cat=batch.item_cat.flip(1), item_dense=batch.item_dense.flip(1))
    for cross in (True, False):
        model = lively_model(cross_attention=cross)
        (z, prior), (other_z, _) = model.encode(batch), model.encode(other)
        lists = torch.tensor([[0]])
        first, second = (model.hidden(x, prior, lists) for x in (z, other_z))  # h_0 has seen [BOS]
        assert torch.allclose(first, second, atol=1e-6) == (not cross)
        names = {name for name, _ in model.named_parameters() if "cross" in name}
        assert bool(names) == cross


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("cross", [True, False])
@pytest.mark.parametrize("pairwise", [(), ("colour",)])
def test_untrained_with_the_position_prior_gives_the_given_order_back(
    heads: int, cross: bool, pairwise: tuple[str, ...]
) -> None:
    """With the settings' own slope, for lists of up to ten out of forty."""
    for seed in range(5):
        torch.manual_seed(seed)
        fresh = model_settings(heads=heads, cross_attention=cross, pairwise=pairwise)
        model = GenReranker(SPEC, fresh).eval()
        batch = random_batch([3, 10, 40], seed=seed)
        with torch.no_grad():
            z, prior = model.encode(batch)
            order, _, _ = OmtpDecode(model.decoder, 10)(z, prior, *cold(3))
        assert order.tolist() == [[0, 1, 2, *[-1] * 7], [*range(10)], [*range(10)]]


def test_without_a_prior_the_untrained_policy_is_nearly_uniform() -> None:
    torch.manual_seed(0)
    model = GenReranker(SPEC, model_settings(prior="none")).eval()
    assert not any(p.requires_grad for n, p in model.named_parameters() if "prior" in n)
    batch = random_batch([10, 4], seed=2)
    with torch.no_grad():
        z, prior = model.encode(batch)
        p = model.block_logits(z, prior, batch.exposed).softmax(-1)
    assert torch.equal(prior[0], torch.zeros(10))
    torch.testing.assert_close(p[0], torch.full_like(p[0], 0.1), atol=0.02, rtol=0)
    torch.testing.assert_close(p[1, :, :4], torch.full([10, 4], 0.25), atol=0.05, rtol=0)


def test_user_features_reach_the_list() -> None:
    model = lively_model()
    batch = random_batch([12] * 20, seed=5)
    same_items = replace(
        batch,
        item_cat=batch.item_cat[:1].expand(20, -1, -1),
        item_dense=batch.item_dense[:1].expand(20, -1, -1),
    )
    z, prior = model.encode(same_items)
    order, _, _ = OmtpDecode(model.decoder, 6)(z, prior, *cold(20))
    assert len({tuple(row) for row in order.tolist()}) > 1
    for name in ("user_cat", "user_dense"):
        changed = replace(batch, **{name: getattr(batch, name).flip(0)})
        assert not torch.allclose(model.encode(changed)[0], model.encode(batch)[0], atol=1e-3)


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("cross", [True, False])
@pytest.mark.parametrize("prior", ["none", "position"])
@pytest.mark.parametrize("pairwise", [(), ("colour", "item")])
def test_every_parameter_that_trains_gets_a_gradient(
    heads: int, cross: bool, prior: str, pairwise: tuple[str, ...]
) -> None:
    """Nothing is built that nothing uses, in any of the settings."""
    torch.manual_seed(0)
    settings_ = model_settings(heads=heads, cross_attention=cross, prior=prior, pairwise=pairwise)
    model = GenReranker(SPEC, settings_)
    batch = random_batch([9, 9], seed=1)
    z, prior_BM = model.encode(batch)
    whole, of_prefix = model.window_logits(z, prior_BM, batch.exposed)
    loss = sum(one.log_softmax(-1).pow(2).mean() for one in (whole, of_prefix))
    (loss + model.utility_logits(z).pow(2).mean()).backward()
    idle = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []


def test_the_pairwise_term_knows_repeats_from_the_start() -> None:
    """One number away: with a negative scale, a candidate like the last one chosen falls behind."""
    torch.manual_seed(0)
    model = GenReranker(SPEC, model_settings(pairwise=("colour",))).eval()
    batch = random_batch([6], seed=2)
    batch.item_cat[0, :, 1] = torch.tensor([2, 2, 2, 3, 3, 4])
    with torch.no_grad():
        model.encoder.pair.scale.fill_(-1.0)
        order, _, _ = OmtpDecode(model.decoder, 3)(*model.encode(batch), *cold(1))
    colours = batch.item_cat[0, order[0].long(), 1].tolist()
    assert colours == [2, 3, 4]
    unknown = model_settings(pairwise=("category",))
    with pytest.raises(ContractError, match="pairwise names category; allowed: item, colour"):
        GenReranker(SPEC, unknown)
