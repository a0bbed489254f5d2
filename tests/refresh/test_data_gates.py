"""Gates on the slates: each catches what it is for, and lets ordinary change pass."""

from __future__ import annotations

from collections import Counter

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.slate_columns import to_table
from contracts.slates import Slate
from training.checkpoint import Checkpoint
from training.data.arrays import encode_table
from training.data.facts import DataFacts, facts_from_text, facts_of, facts_text
from training.refreshing.data_gates import data_gates
from training.refreshing.settings import DataGateSettings
from training.sources.table_slates import REPEATED

FACTS = DataFacts(
    slates=5000,
    users=900,
    with_utility=4000,
    rates={"click": 0.2, "like": 0.03, "rare": 0.0002},
    positions=(0.4, 0.3, 0.2, 0.1),
    saturated=0.001,
    largest_user_share=0.01,
    fallbacks=0.02,
)
SETTINGS = DataGateSettings()


def failed(
    facts: DataFacts | None, reference: DataFacts | None = FACTS, **dropped: int
) -> set[str]:
    gates = data_gates(facts, Counter(dropped), reference, SETTINGS)
    return {gate.name for gate in gates if not gate.passed}


def test_ordinary_slates_pass() -> None:
    assert failed(FACTS) == set()
    assert failed(FACTS, None) == set()


@pytest.mark.parametrize(
    ("change", "gate"),
    [
        ({"slates": 1999}, "data.slates"),
        ({"users": 49}, "data.users"),
        ({"with_utility": 299}, "data.feedback"),
        ({"largest_user_share": 0.06}, "data.one_user"),
        ({"fallbacks": 0.6}, "data.fallbacks"),
        ({"saturated": 0.03}, "data.saturated"),
        ({"rates": {"click": 0.41, "like": 0.03}}, "data.rate.click"),
        ({"rates": {"click": 0.2, "like": 0.014}}, "data.rate.like"),
        ({"rates": {"click": 0.0, "like": 0.03}}, "data.rate.click"),
        ({"positions": (0.25, 0.25, 0.25, 0.25)}, "data.positions"),
        ({"positions": (0.1, 0.2, 0.3, 0.4)}, "data.positions"),
    ],
)
def test_each_gate_catches_what_it_is_for(change: dict[str, object], gate: str) -> None:
    assert failed(msgspec.structs.replace(FACTS, **change)) == {gate}


def test_rows_that_cannot_be_used_and_rows_there_twice_are_told_apart() -> None:
    assert failed(FACTS, **{"not finite": 51}) == {"data.dropped"}
    assert failed(FACTS, **{REPEATED: 1}) == {"data.duplicates"}
    assert failed(None, **{"not finite": 5}) == {"data.slates", "data.dropped"}


@given(
    now=st.floats(0.001, 1),
    before=st.floats(0.001, 1),
    shares=st.lists(st.floats(0.01, 1), min_size=1, max_size=12),
)
def test_rates_count_alike_either_way_and_shares_shift_at_most_one(
    now: float, before: float, shares: list[float]
) -> None:
    one = msgspec.structs.replace(FACTS, rates={"click": now})
    two = msgspec.structs.replace(FACTS, rates={"click": before}, positions=_shares(shares))
    by_name = [
        {gate.name: gate.value for gate in data_gates(a, Counter(), b, SETTINGS)}
        for a, b in ((one, two), (two, one))
    ]
    assert by_name[0]["data.rate.click"] == pytest.approx(by_name[1]["data.rate.click"])
    assert by_name[0]["data.positions"] == pytest.approx(by_name[1]["data.positions"])
    assert 0 <= by_name[0]["data.positions"] <= 1 + 1e-9


def _shares(values: list[float]) -> tuple[float, ...]:
    return tuple(value / sum(values) for value in values)


def test_facts_are_those_of_a_count_by_hand(slates: list[Slate], champion: Checkpoint) -> None:
    some = slates[:200]
    facts = facts_of(encode_table(to_table(some, champion.spec).combine_chunks(), champion.spec))
    clicks = [
        (slate.user, one.position)
        for slate in some
        for one in slate.feedback
        if one.kind == "click"
    ]
    shown = sum(len(slate.exposed) for slate in some)
    assert facts.rates["click"] == pytest.approx(len(clicks) / shown)
    by_position = Counter(position for _, position in clicks)
    assert facts.positions == pytest.approx([by_position[k] / len(clicks) for k in range(5)])
    by_user = Counter(user for user, _ in clicks)
    assert facts.largest_user_share == pytest.approx(max(by_user.values()) / len(clicks))
    assert facts.users == len({slate.user for slate in some})
    full = sum(
        sum(one.kind == "click" for one in slate.feedback) == len(slate.exposed) for slate in some
    )
    assert facts.saturated == pytest.approx(full / len(some))
    assert facts_from_text(facts_text(facts), "here") == facts
    assert np.isclose(sum(facts.positions), 1)
