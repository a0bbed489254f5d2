"""Rules of a request as the decoder takes them, and as the fallback keeps them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.reading import ContractError, convert
from contracts.rules import ABSENT, GroupLimit, ListRules, Pin, encode_rules, order_within
from contracts.slates import Candidate, RerankRequest
from handlers.rerank_result import given_order, rules_kept
from tests.decoding.test_rules import Case, cases, kept_pins, plain_decode


def request_with(rules: ListRules, *groups: str | None) -> RerankRequest:
    return RerankRequest(
        request_id="r",
        user="u",
        rules=rules,
        candidates=tuple(
            Candidate(item=f"i{index}", features={"author": group})
            for index, group in enumerate(groups)
        ),
    )


def test_encoded_as_indices_groups_and_limit() -> None:
    rules = ListRules(
        pinned=(
            Pin(position=0, item="i2"),
            Pin(position=1, item="not here"),
            Pin(position=9, item="i0"),
        ),
        limit=GroupLimit(feature="author", most=2, window=4),
    )
    requests = [request_with(rules, "a", "b", None, "a"), request_with(ListRules(), "a")]
    encoded = encode_rules(requests, 3, 6)
    assert encoded.pinned.tolist() == [[2, ABSENT, -1], [-1, -1, -1]]
    assert encoded.group.tolist() == [[0, 1, -1, 0, -1, -1], [-1] * 6]
    assert encoded.limit.tolist() == [[2, 4], [0, 0]]


@pytest.mark.parametrize(
    ("raw", "cause"),
    [
        ({"pinned": [{"position": 64, "item": "a"}]}, "position is 64"),
        ({"pinned": [{"position": 1, "item": "a"}] * 2}, "names a position twice"),
        ({"limit": {"feature": "author", "most": 0}}, "most is 0"),
        ({"limit": {"feature": "author", "window": 1}}, "window is 1"),
        ({"limits": {}}, "did you mean limit"),
    ],
)
def test_rules_that_are_none_are_refused(raw: dict[str, object], cause: str) -> None:
    with pytest.raises(ContractError, match=cause):
        convert(raw, ListRules, "request")


@given(cases())
def test_a_fallback_keeps_the_rules_as_a_decode_of_the_given_order_would(case: Case) -> None:
    """Against the rules in loops, the candidates scored by their place."""
    m = len(case.groups)
    scores = [[float(m - index) for index in range(m)]] * len(case.pins)
    case = Case(case.groups, case.pins, case.most, case.window, scores)
    pinned = tuple(
        Pin(position=place, item=f"i{item}") for place, item in enumerate(case.pins) if item >= 0
    )
    groups = [None if group < 0 else f"g{group}" for group in case.groups]
    limit = None
    if case.window > 1:
        limit = GroupLimit(feature="author", most=case.most, window=case.window)
    elif case.window == 1:
        return  # a window of one neighbour is none, which the contract says and the engine allows
    rules = ListRules(pinned=pinned, limit=limit)
    items = [f"i{index}" for index in range(m)]
    expected = plain_decode(case)
    assert order_within(rules, items, groups, len(case.pins)) == expected
    request = request_with(rules, *groups)
    assert given_order(request, len(case.pins)) == expected
    dropped, over = rules_kept(request, expected)
    assert dropped == len(pinned) - len(kept_pins(case))
    assert (over == 0) or limit is not None


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=6))
def test_without_rules_the_given_order_is_cut(groups: list[str]) -> None:
    request = request_with(ListRules(), *groups)
    assert given_order(request, 3) == list(range(min(3, len(groups))))
    assert rules_kept(request, [0]) == (0, 0)
