"""What every network owes: a list without repetition that padding and company leave alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.baselines.networks import KINDS, inputs_of, network
from tests.model.tiny import SPEC, model_settings, one_row, padded, random_batch
from training.engines.torchscript import compile_engine

EVERY = pytest.mark.parametrize("kind", list(KINDS))
COUNTS = st.lists(st.integers(1, 12), min_size=1, max_size=4)
SEEDS = st.integers(0, 10_000)


@EVERY
@settings(max_examples=25)
@given(counts=COUNTS, seed=SEEDS)
def test_lists_hold_each_candidate_once(kind: str, counts: list[int], seed: int) -> None:
    order, score = network(kind)(*inputs_of(random_batch(counts, seed=seed)))
    assert (order.dtype, order.shape) == (torch.int32, (len(counts), SPEC.list_size))
    assert (score.dtype, score.shape) == (torch.float32, order.shape)
    for row, m in enumerate(counts):
        shown = min(m, SPEC.list_size)
        chosen = order[row, :shown].tolist()
        assert len(set(chosen)) == shown
        assert set(chosen) <= set(range(m))
        assert (order[row, shown:] == -1).all()
        assert (score[row, shown:] == 0).all()
        assert (score[row, :shown] <= 1e-6).all()


@EVERY
@settings(max_examples=25)
@given(counts=COUNTS, more=st.integers(1, 9), seed=SEEDS)
def test_padding_and_company_change_nothing(
    kind: str, counts: list[int], more: int, seed: int
) -> None:
    batch = random_batch(counts, seed=seed)
    order, score = network(kind)(*inputs_of(batch))
    wider, wider_score = network(kind)(*inputs_of(padded(batch, more)))
    assert torch.equal(order, wider)
    torch.testing.assert_close(score, wider_score, atol=1e-4, rtol=1e-4)
    for row in range(len(counts)):
        alone, alone_score = network(kind)(*inputs_of(one_row(batch, row)))
        assert torch.equal(order[row], alone[0])
        torch.testing.assert_close(score[row], alone_score[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("kind", "options"), [("dnn", {}), ("prm", {"positions": 0})])
@settings(max_examples=25)
@given(m=st.integers(2, 12), seed=SEEDS)
def test_without_positions_the_given_order_does_not_matter(
    kind: str, options: dict[str, int], m: int, seed: int
) -> None:
    batch = random_batch([m], seed=seed)
    moved = torch.randperm(m, generator=torch.Generator().manual_seed(seed))
    one = network(kind, **options)(*inputs_of(batch))[0][0]
    item_cat, item_dense, *rest = inputs_of(batch)
    two = network(kind, **options)(item_cat[:, moved], item_dense[:, moved], *rest)[0][0]
    shown = min(m, SPEC.list_size)
    assert moved[two[:shown].long()].tolist() == one[:shown].tolist()


@pytest.mark.parametrize("kind", ["prm", "nar4rec", "seq2slate", "seq2slate_transformer"])
def test_the_others_read_the_given_order(kind: str) -> None:
    differing = 0
    for seed in range(10):
        item_cat, item_dense, *rest = inputs_of(random_batch([10], seed=seed))
        one = network(kind)(item_cat, item_dense, *rest)[0][0].long()
        two = network(kind)(item_cat.flip(1), item_dense.flip(1), *rest)[0][0].long()
        differing += (9 - two).tolist() != one.tolist()
    assert differing > 5


@EVERY
def test_user_and_every_candidate_column_matter(kind: str) -> None:
    batch = random_batch([12] * 8, seed=3)
    given = inputs_of(batch)
    _, score = network(kind)(*given)
    for index in range(4):
        other = inputs_of(random_batch([12] * 8, seed=4))[index]
        changed = (*given[:index], other, *given[index + 1 :])
        assert not torch.allclose(network(kind)(*changed)[1], score)


@EVERY
def test_a_category_beyond_its_table_counts_as_missing(kind: str) -> None:
    batch = random_batch([5, 9])
    item_cat, item_dense, user_cat, user_dense, count = inputs_of(batch)
    missing = network(kind)(torch.zeros_like(item_cat), item_dense, user_cat, user_dense, count)
    for beyond in (2**31 - 1, -1):
        odd = torch.full_like(item_cat, beyond)
        found = network(kind)(odd, item_dense, user_cat, user_dense, count)
        assert torch.equal(found[0], missing[0])
        assert torch.equal(found[1], missing[1])


@pytest.mark.parametrize("kind", ["prm", "nar4rec", "seq2slate_transformer"])
def test_more_candidates_than_positions_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="more candidates than positions"):
        network(kind, positions=8)(*inputs_of(random_batch([9])))


@EVERY
def test_every_parameter_can_learn(kind: str) -> None:
    torch.manual_seed(0)
    made = KINDS[kind](SPEC, model_settings())
    _, score = made(*inputs_of(random_batch([12] * 6, seed=1)))
    score.sum().backward()
    gradients = {name: one.grad for name, one in made.named_parameters()}
    assert [name for name, grad in gradients.items() if grad is None] == []
    # Of biases, some add the same to every candidate, which no softmax sees.
    weights = {name: grad for name, grad in gradients.items() if "bias" not in name}
    assert [name for name, grad in weights.items() if not grad.any()] == []


@EVERY
def test_torchscript_equals_eager(kind: str) -> None:
    engine = compile_engine(network(kind))
    for repeat, counts in enumerate([[9, 2, 12], [9, 2, 12], [3], [9, 2, 12]]):
        given = inputs_of(random_batch(counts, seed=repeat))
        with torch.inference_mode():
            order, score = network(kind)(*given)
            found, found_score = engine(*given)
        assert torch.equal(found, order)
        torch.testing.assert_close(found_score, score, atol=1e-5, rtol=1e-4)
