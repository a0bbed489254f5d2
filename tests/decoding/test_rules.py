"""Pins and the group limit against rules written in loops, and what a user relies on."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.model.tiny import cold, lively_model, random_batch
from training.decoding.choice import block, choose
from training.decoding.omtp import OmtpDecode
from training.decoding.rules import make_rules, placed, relaxed, restrict
from training.decoding.verified import VerifiedDecode


@dataclass(frozen=True)
class Case:
    """One request: candidates, their groups (-1: none), wanted pins, k and w, scores per step."""

    groups: list[int]
    pins: list[int]
    most: int
    window: int
    scores: list[list[float]]

    @property
    def length(self) -> int:
        return min(len(self.groups), len(self.pins))


@st.composite
def cases(draw: st.DrawFn, most_candidates: int = 7, most_places: int = 5) -> Case:
    m = draw(st.integers(1, most_candidates))
    n = draw(st.integers(1, most_places))
    pin = st.one_of(st.just(-1), st.integers(-1, m + 1))
    score = st.lists(st.permutations(range(m)), min_size=n, max_size=n)
    return Case(
        groups=draw(st.lists(st.integers(-1, 2), min_size=m, max_size=m)),
        pins=draw(st.lists(pin, min_size=n, max_size=n)),
        most=draw(st.integers(1, 3)),
        window=draw(st.integers(0, n + 1)),
        scores=[[float(one) for one in row] for row in draw(score)],
    )


def kept_pins(case: Case) -> dict[int, int]:
    """Position -> candidate of the pins that can stand."""
    kept: dict[int, int] = {}
    for place, item in enumerate(case.pins[: case.length]):
        if 0 <= item < len(case.groups) and item not in kept.values():
            kept[place] = item
    return kept


def excess(case: Case, shown: dict[int, int], place: int, item: int) -> int:
    """By how many items the fullest window around ``place`` would exceed the limit."""
    if case.window == 0 or case.groups[item] < 0:
        return 0
    fullest = 0
    for start in range(place - case.window + 1, place + 1):
        inside = [shown[p] for p in range(start, start + case.window) if p in shown and p != place]
        same = sum(case.groups[other] == case.groups[item] for other in inside)
        fullest = max(fullest, same + 1)
    return max(0, fullest - case.most)


def plain_decode(case: Case) -> list[int]:
    """The list by the rules as docs/serving.md states them, one position after the other."""
    pins = kept_pins(case)
    shown = dict(pins)
    for place in range(case.length):
        if place in pins:
            continue
        free = [item for item in range(len(case.groups)) if item not in shown.values()]
        least = min(excess(case, shown, place, item) for item in free)
        allowed = [item for item in free if excess(case, shown, place, item) == least]
        shown[place] = max(allowed, key=lambda item: case.scores[place][item])
    return [shown[place] for place in range(case.length)]


def violations(case: Case, shown: list[int]) -> int:
    """Positions whose item and those before it within the window exceed the limit."""
    total = 0
    for place, item in enumerate(shown):
        before = shown[max(0, place - case.window + 1) : place + 1]
        same = sum(case.groups[other] == case.groups[item] for other in before)
        total += case.window > 0 and case.groups[item] >= 0 and same > case.most
    return total


def tensor_decode(batch: list[Case]) -> tuple[list[list[int]], list[list[int]], Tensor]:
    """The same by the code under test, rows of different sizes padded together."""
    m = max(len(case.groups) for case in batch)
    n = max(len(case.pins) for case in batch)
    prior = torch.full([len(batch), m], -1e9)
    group = torch.full([len(batch), m], 5)  # a padded candidate's group must not matter
    pinned = torch.full([len(batch), n], -1)
    scores = torch.zeros(n, len(batch), m)
    for row, case in enumerate(batch):
        own = len(case.groups)
        prior[row, :own] = 0.0
        group[row, :own] = torch.tensor(case.groups)
        pinned[row, : len(case.pins)] = torch.tensor(case.pins)
        for place, values in enumerate(case.scores):
            scores[place, row, :own] = torch.tensor(values)
    limit = torch.tensor([[case.most, case.window] for case in batch])
    rules = make_rules(prior, pinned.int(), group.int(), limit.int())
    bias, items, log_probs = prior, [], []
    greedy = torch.zeros(len(batch), 1)
    for place in range(n):
        where = torch.full([len(batch), 1], place)
        allowed = restrict(scores[place] + bias, where, rules)
        item, log_prob = choose(allowed, greedy)
        bias, rules = block(bias, item), placed(rules, where, item)
        items.append(item)
        log_probs.append(log_prob)
    order = torch.stack(items, 1)
    return order.tolist(), relaxed(order, pinned, rules).tolist(), torch.stack(log_probs, 1)


def one_length(batch: list[Case]) -> list[Case]:
    """All with as many positions as the first: n is fixed in an engine."""
    n = len(batch[0].pins)
    return [case for case in batch if len(case.pins) == n]


@settings(max_examples=300)
@given(st.lists(cases(), min_size=1, max_size=4))
def test_lists_follow_the_rules_written_in_loops(batch: list[Case]) -> None:
    batch = one_length(batch)
    orders, reports, log_probs = tensor_decode(batch)
    for case, order, report, log_prob in zip(batch, orders, reports, log_probs):
        expected = plain_decode(case)
        assert order == expected + [-1] * (len(case.pins) - len(expected))
        asked = [(place, item) for place, item in enumerate(case.pins) if item >= 0]
        assert report[0] == sum(order[place] != item for place, item in asked)
        assert report[1] == violations(case, expected)
        for place in kept_pins(case):
            assert log_prob[place] == 0.0  # nothing was chosen there


@settings(max_examples=150)
@given(cases(most_candidates=5, most_places=4))
def test_where_any_list_keeps_all_rules_pins_stand_and_nothing_else_is_dropped(case: Case) -> None:
    """Brute force over every list: pins that can stand do, whatever the limit says."""
    (order,), ((dropped, over),), _ = tensor_decode([case])
    pins = kept_pins(case)
    assert all(order[place] == item for place, item in pins.items())
    lists = permutations(range(len(case.groups)), case.length)
    pinned = [one for one in lists if all(one[place] == item for place, item in pins.items())]
    assert tuple(order[: case.length]) in pinned
    fewest = min(violations(case, list(one)) for one in pinned)
    assert over >= fewest
    if over == 0:
        assert fewest == 0
    assert dropped == sum(item >= 0 for item in case.pins) - len(pins)


@pytest.mark.parametrize("heads", [1, 4])
@settings(max_examples=25)
@given(
    counts=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    seed=st.integers(0, 2**31),
    temperature=st.sampled_from((0.0, 1.0)),
)
def test_rules_that_ask_for_nothing_change_nothing(
    heads: int, counts: list[int], seed: int, temperature: float
) -> None:
    model = lively_model(heads, pairwise=("colour",))
    z, prior = model.encode(random_batch(counts, seed=seed))
    decode = OmtpDecode(model.decoder, 6)
    heat = torch.full([len(counts), 1], temperature), torch.arange(len(counts)).unsqueeze(1)
    generator = torch.Generator().manual_seed(seed)
    group = torch.randint(-1, 3, prior.shape, generator=generator)
    nothing = make_rules(
        prior, torch.full([len(counts), 6], -1), group, torch.zeros(len(counts), 2)
    )
    plain, ruled = decode(z, prior, *heat), decode(z, prior, *heat, nothing)
    assert all(torch.equal(a, b) for a, b in zip(plain, ruled))


@settings(max_examples=40)
@given(
    counts=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    seed=st.integers(0, 2**31),
    temperature=st.sampled_from((0.0, 1.0)),
    most=st.integers(1, 2),
    window=st.integers(1, 4),
)
def test_the_model_decodes_within_the_rules(
    counts: list[int], seed: int, temperature: float, most: int, window: int
) -> None:
    """Pins stand, no item twice, and a list without a report keeps the limit."""
    model = lively_model(4)
    batch = random_batch(counts, seed=seed)
    z, prior = model.encode(batch)
    generator = torch.Generator().manual_seed(seed)
    group = torch.randint(-1, 4, prior.shape, generator=generator)
    pinned = torch.where(
        torch.rand(len(counts), 6, generator=generator) < 0.3,
        torch.randint(0, 12, (len(counts), 6), generator=generator),
        torch.tensor(-1),
    )
    limit = torch.tensor([[most, window]] * len(counts))
    rules = make_rules(prior, pinned, group, limit)
    heat = torch.full([len(counts), 1], temperature), cold(len(counts))[1] + seed % 1000
    order, log_prob, _ = OmtpDecode(model.decoder, 6)(z, prior, *heat, rules)
    assert (log_prob <= 1e-6).all()
    reports = relaxed(order, pinned, rules).tolist()
    for row, count in enumerate(counts):
        case = Case(group[row, :count].tolist(), pinned[row].tolist(), most, window, [])
        shown = [item for item in order[row].tolist() if item >= 0]
        assert len(set(shown)) == len(shown) == case.length
        assert all(shown[place] == item for place, item in kept_pins(case).items())
        assert reports[row][1] == violations(case, shown)
    if temperature == 0:
        exact = OmtpDecode(model.decoder, 6, 1)(z, prior, *heat, rules)
        verified = VerifiedDecode(model.decoder, 6)(z, prior, *heat, rules)
        assert torch.equal(verified[0], exact[0])
        torch.testing.assert_close(verified[1], exact[1], atol=1e-4, rtol=1e-3)
