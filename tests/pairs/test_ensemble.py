"""Several evaluators as one, and the beam that searches the list which they think best."""

from __future__ import annotations

import copy
from functools import lru_cache
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.tiny import one_row, padded, random_batch
from tests.pairs.evaluators import evaluator
from training.data.batch import Batch
from training.pairs.beam import beam_search
from training.pairs.ensemble import Ensemble
from training.pairs.evaluator import Evaluator
from training.pairs.search import search_lists

shapes = st.lists(st.integers(1, 6), min_size=1, max_size=4)


@lru_cache
def member(number: int, discount: str = "none") -> Evaluator:
    """Evaluators that differ. Cached: tests must not change them."""
    made = copy.deepcopy(evaluator(discount))
    generator = torch.Generator().manual_seed(number)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return made


@lru_cache
def ensemble(size: int, discount: str = "none") -> Ensemble:
    return Ensemble([member(number, discount) for number in range(size)])


def of_values(size: int) -> Ensemble:
    """Of evaluators of a utility that is not binary: what they expect may be any number."""
    members = [copy.deepcopy(member(number)) for number in range(size)]
    for one in members:
        one.binary = False
    return Ensemble(members)


def every_list(m: int, n: int) -> list[list[int]]:
    """All lists of n of m candidates, -1 once all are in."""
    return [[*one, *[-1] * (n - m)] for one in permutations(range(m), min(m, n))]


@settings(max_examples=30)
@given(shapes, st.integers(0, 2**31))
def test_it_expects_the_mean_of_its_members_probabilities(counts: list[int], seed: int) -> None:
    batch = random_batch(counts, seed=seed)
    place = torch.arange(batch.exposed.size(1))
    given_order = place.expand_as(batch.exposed).masked_fill(batch.exposed < 0, -1)
    lists = torch.stack([batch.exposed, given_order], dim=1)
    total = torch.zeros(lists.shape)
    for number in range(3):
        one = member(number)
        for which in range(2):
            logits = one(one.items(batch), batch.item_cat, lists[:, which])
            total[:, which] += logits.sigmoid() / 3
    expected = ensemble(3).expected(batch, lists)
    torch.testing.assert_close(expected, total, atol=1e-5, rtol=1e-5)
    value = (total * (lists >= 0)).sum(2)
    torch.testing.assert_close(ensemble(3).value(batch, lists), value, atol=1e-5, rtol=1e-5)


def test_the_mean_is_not_that_of_the_logits() -> None:
    """That the test above can tell: the members are far enough apart."""
    batch = random_batch([6] * 8, seed=1)
    each = [one.expected(batch, batch.exposed.unsqueeze(1)) for one in map(member, range(3))]
    together = ensemble(3).expected(batch, batch.exposed.unsqueeze(1))
    of_logits = torch.stack([torch.logit(one) for one in each]).mean(0).sigmoid()
    assert (together - of_logits).abs().max() > 1e-3


@pytest.mark.parametrize("discount", ["none", "log"])
def test_one_alone_is_its_member(discount: str) -> None:
    batch = random_batch([5, 8, 3], seed=2)
    alone, lists = Ensemble([member(0, discount)]), batch.exposed.unsqueeze(1)
    assert torch.equal(alone.expected(batch, lists), member(0, discount).expected(batch, lists))
    assert torch.equal(alone.value(batch, lists), member(0, discount).value(batch, lists))


def test_an_ensemble_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one evaluator"):
        Ensemble([])


@settings(max_examples=30)
@given(shapes, st.integers(1, 7), st.integers(0, 2**31), st.booleans())
def test_growing_lists_expect_what_whole_prefixes_say(
    counts: list[int], n: int, seed: int, binary: bool
) -> None:
    """Of every candidate that is free, after items in any order."""
    batch, judge = random_batch(counts, seed=seed), (ensemble if binary else of_values)(3)
    grown = judge.growing(batch)
    for k in range(min(n, max(counts))):
        expected = grown.expected()
        assert expected.shape == (len(counts), max(counts))
        for row, m in enumerate(counts):
            prefix = batch.exposed[row, :k].tolist()
            free = [j for j in range(m) if j not in prefix] if k < m else []
            if free:
                whole = torch.tensor([[[*prefix, one] for one in free]])
                wanted = judge.expected(one_row(batch, row), whole)[0, :, -1]
                torch.testing.assert_close(expected[row, free], wanted, atol=1e-4, rtol=1e-3)
        grown.take(batch.exposed[:, k])


def test_a_list_may_go_on_from_another_of_its_request() -> None:
    """As a beam does: row 0 takes over what row 1 has chosen."""
    batch = random_batch([6], seed=3)
    twice = Batch(**{name: value.repeat_interleave(2, 0) for name, value in vars(batch).items()})
    grown, lists = ensemble(2).growing(twice), torch.tensor([[0, 4], [5, 2]])
    for k in range(2):
        grown.expected()
        grown.take(lists[:, k])
    grown.expected()
    grown.follow(torch.tensor([1, 1]))
    grown.take(torch.tensor([3, 1]))
    got = grown.expected()
    for row, prefix in enumerate(([5, 2, 3], [5, 2, 1])):
        free = [j for j in range(6) if j not in prefix]
        whole = torch.tensor([[[*prefix, one] for one in free]])
        wanted = ensemble(2).expected(batch, whole)[0, :, -1]
        torch.testing.assert_close(got[row, free], wanted, atol=1e-4, rtol=1e-3)


@settings(max_examples=25)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.integers(1, 5),
    st.integers(0, 2**31),
    st.sampled_from(["none", "log"]),
    st.integers(0, 2),
)
def test_a_beam_of_full_width_finds_the_best_of_all_lists(
    counts: list[int], n: int, seed: int, discount: str, more: int
) -> None:
    """By the value that ranks pairs; 24 is as many lists as four candidates have."""
    batch, judge = random_batch(counts, seed=seed), ensemble(2, discount)
    lists, _ = search_lists(judge, padded(batch, more), n, beam=24)
    for row, m in enumerate(counts):
        every = every_list(m, n)
        assert lists[row].tolist() in every
        value = judge.value(one_row(batch, row), torch.tensor([every]))[0]
        found = value[every.index(lists[row].tolist())]
        assert float(found) >= float(value.max()) - 1e-4


def test_a_beam_of_full_width_finds_the_best_of_costs() -> None:
    """Expectations below 0 are as good as others: nothing settles before it is asked to."""
    judge = of_values(2)
    for one in judge.evaluators():
        with torch.no_grad():
            one.own.bias -= 30.0
    batch = random_batch([4] * 30, seed=7)
    lists, _ = search_lists(judge, batch, 3, beam=24)
    every = every_list(4, 3)
    value = judge.value(batch, torch.tensor([every]).expand(30, -1, -1))
    assert float(value.max()) < -60
    found = judge.value(batch, lists.unsqueeze(1))[:, 0]
    torch.testing.assert_close(found, value.amax(1), atol=1e-3, rtol=0)
    # Within a hundredth of the best all of them are: then it is greedy.
    settled, _ = beam_search(judge, batch, 3, 24, stable=0.5)
    assert torch.equal(settled, search_lists(judge, batch, 3)[0])


def test_a_wider_beam_finds_better_lists() -> None:
    """Not for each request, but on the whole; and greedy is not yet the best."""
    batch = random_batch([12] * 40, seed=6)
    values = [
        float(
            ensemble(2).value(batch, search_lists(ensemble(2), batch, 6, beam)[0][:, None]).mean()
        )
        for beam in (1, 4, 16)
    ]
    assert values[0] < values[1] < values[2]


@settings(max_examples=25)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.integers(1, 6),
    st.sampled_from([1, 2, 5]),
    st.integers(0, 2**31),
    st.integers(0, 3),
)
def test_lists_are_valid_and_have_their_own_expectations(
    counts: list[int], n: int, beam: int, seed: int, more: int
) -> None:
    """What is given beside a list was expected after its items, not after another beam's."""
    batch = random_batch(counts, seed=seed)
    lists, expected = search_lists(ensemble(2), padded(batch, more), n, beam)
    assert expected.shape == (len(counts), n, max(counts) + more)
    own = ensemble(2).expected(batch, lists.unsqueeze(1))[:, 0]
    for row, m in enumerate(counts):
        found = lists[row].tolist()
        real = found[: min(m, n)]
        assert sorted({*real}) == sorted(real)
        assert all(0 <= item < m for item in real)
        assert found[len(real) :] == [-1] * (n - len(real))
        for k, item in enumerate(real):
            assert float(expected[row, k, item]) == pytest.approx(float(own[row, k]), abs=1e-4)
