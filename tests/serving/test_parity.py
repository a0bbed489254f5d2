"""The parity gate passes what is equal, and catches engines that were broken on purpose."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.encoding import FeatureEncoder
from tests.serving.toy_engines import SPEC, toy_modules, toy_request
from training.engines.parity import (
    REQUIRED_GATES,
    Engines,
    ParitySettings,
    answer,
    pad,
    parity_gates,
)

torch.set_num_threads(1)

ENCODE, DECODE = toy_modules()
EAGER = Engines(ENCODE, DECODE, SPEC.list_size)
BATCHES = [
    FeatureEncoder(SPEC).encode([toy_request(n, count) for n, count in enumerate((1, 4, 8, 16))]),
    FeatureEncoder(SPEC).encode([toy_request(9, 40)]),
]


def gates(encode=ENCODE, decode=DECODE, parity: ParitySettings | None = None):
    found = parity_gates(
        EAGER, Engines(encode, decode, SPEC.list_size), BATCHES, SPEC.candidate_buckets, parity
    )
    assert tuple(gate.name for gate in found) == REQUIRED_GATES
    return {gate.name.removeprefix("parity."): gate for gate in found}


def failed(**engines) -> set[str]:
    return {name for name, gate in gates(**engines).items() if not gate.passed}


def test_equal_engines_pass() -> None:
    found = gates()
    assert all(gate.passed for gate in found.values())
    assert found["eager.score"].value == 0
    assert "15 rows" in found["eager.order"].detail  # 5 requests, twice freely and once ruled


def test_drifted_weights_are_caught() -> None:
    def encode(*inputs):
        z, prior = ENCODE(*inputs)
        return z + 0.01, prior

    assert failed(encode=encode) == {"eager.score"}
    assert "batch 0 at temperature 0, row 0" in gates(encode=encode)["eager.score"].detail


def test_reversed_order_with_true_scores_is_caught() -> None:
    """LOG_PROB alone would not tell."""

    def decode(*inputs):
        order, *rest = DECODE(*inputs)
        swapped = order.clone()
        swapped[:, 0], swapped[:, 1] = order[:, 1], order[:, 0]
        return swapped, *rest

    found = gates(decode=decode)
    assert not found["eager.order"].passed
    assert found["eager.order"].value == 15
    assert found["eager.score"].passed


def test_confident_other_choice_is_caught_and_named() -> None:
    """An engine that skips the best item in row 2 of a batch, and nowhere else."""

    def decode(z, prior, *others):
        if len(z) > 2:
            best = DECODE(z, prior, *others)[0][2, 0]
            prior = prior.clone()
            prior[2, best] -= 50.0
        return DECODE(z, prior, *others)

    found = gates(decode=decode)
    assert not found["eager.order"].passed
    assert "first: batch 0 at temperature 0, row 2 (8 candidates)" in found["eager.order"].detail
    assert not found["alone.order"].passed


def test_dependence_on_the_batch_is_caught() -> None:
    """Statistics over the batch, as a batch norm left in training mode has."""

    def encode(*inputs):
        z, prior = ENCODE(*inputs)
        return z - 0.1 * z.mean(dim=0, keepdim=True) * (len(z) - 1), prior

    assert {"alone.score"} <= failed(encode=encode)


def test_dependence_on_the_padding_is_caught() -> None:
    """A mean over all candidates, padded ones included."""

    def encode(*inputs):
        z, prior = ENCODE(*inputs)
        return z - z.mean(dim=1, keepdim=True), prior

    wrong = Engines(encode, DECODE, SPEC.list_size)
    found = parity_gates(wrong, wrong, BATCHES, SPEC.candidate_buckets)
    assert {gate.name for gate in found if not gate.passed} >= {"parity.padded.score"}
    assert found[0].passed, "the engine equals its eager model; only the padding betrays it"


def test_an_engine_that_ignores_the_rules_is_caught() -> None:
    def decode(z, prior, temperature, seed, pinned, group, limit):
        return DECODE(z, prior, temperature, seed, torch.full_like(pinned, -1), group, 0 * limit)

    found = gates(decode=decode)
    assert not found["eager.order"].passed
    assert "within rules" in found["eager.order"].detail


def test_sampling_that_depends_on_neighbours_is_caught() -> None:
    def decode(z, prior, temperature, seed, *rules):
        return DECODE(z, prior, temperature, seed + len(z), *rules)

    found = gates(decode=decode)
    assert not found["alone.order"].passed
    assert "temperature 1" in found["alone.order"].detail
    greedy = gates(decode=decode, parity=ParitySettings(temperatures=(0.0,)))
    assert all(gate.passed for gate in greedy.values())


def test_nan_and_other_shapes_are_caught() -> None:
    def nan(*inputs):
        z, prior = ENCODE(*inputs)
        return z * float("nan"), prior

    def wide(*inputs):
        z, prior = ENCODE(*inputs)
        return torch.cat([z, z], dim=2), prior

    def of_wide(z, *others):
        return DECODE(z[..., : z.shape[2] // 2], *others)

    assert "eager.score" in failed(encode=nan)
    for gate in gates(encode=nan).values():
        assert gate.value < float("inf"), "a manifest is JSON, which knows no infinity"
    assert failed(encode=wide, decode=of_wide) == {"eager.score"}


def test_few_ties_are_excused_and_many_are_not() -> None:
    """Two candidates with one representation: either may come first."""

    def encode(*inputs):
        z, prior = ENCODE(*inputs)
        z, prior = z.clone(), prior.clone()
        two = prior[:, 1] > -1e8
        z[two, 1], prior[two, 1] = z[two, 0], prior[two, 0]
        return z, prior

    def last_of_equals(z, prior, temperature, seed, pinned, group, limit):
        last = z.shape[1] - 1
        pinned = torch.where(pinned >= 0, last - pinned, pinned)
        order, log_prob, passes, gave = DECODE(
            z.flip(1), prior.flip(1), temperature, seed, pinned, group.flip(1), limit
        )
        back = torch.where(order >= 0, last - order, order)
        return back.int(), log_prob, passes, gave

    greedy = (0.0,)
    eager, engine = (
        Engines(encode, DECODE, SPEC.list_size),
        Engines(encode, last_of_equals, SPEC.list_size),
    )
    strict = parity_gates(
        eager, engine, BATCHES, SPEC.candidate_buckets, ParitySettings(temperatures=greedy)
    )
    lax = parity_gates(
        eager,
        engine,
        BATCHES,
        SPEC.candidate_buckets,
        ParitySettings(temperatures=greedy, tied_rows=0.99),
    )
    assert strict[0].name == "parity.eager.order"
    assert not strict[0].passed
    assert strict[0].value > 0
    assert lax[0].passed
    assert "tied" in lax[0].detail


def test_no_requests_is_an_error() -> None:
    with pytest.raises(ValueError, match="no request"):
        parity_gates(EAGER, EAGER, [], SPEC.candidate_buckets)


@settings(max_examples=25)
@given(counts=st.lists(st.integers(1, 16), min_size=1, max_size=5), seed=st.integers(0, 1000))
def test_padding_changes_nothing_for_the_true_model(counts: list[int], seed: int) -> None:
    requests = [toy_request(seed + n, count) for n, count in enumerate(counts)]
    batch = FeatureEncoder(SPEC).encode(requests, 16)
    seeds = [seed] * len(counts)
    narrow, wide = (answer(EAGER, b, 1.0, seeds) for b in (batch, pad(batch, 64)))
    assert narrow.order_BN.tolist() == wide.order_BN.tolist()
    torch.testing.assert_close(narrow.log_prob_BN, wide.log_prob_BN)
