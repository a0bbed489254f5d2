"""Parts of the benchmark of refreshes in a row: its traffic, its truth, its arithmetic."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.refresh_rounds.commands import last_json
from benchmarks.refresh_rounds.findings import Findings, Round, mean_interval, recovery
from benchmarks.refresh_rounds.plot import plot_rounds
from benchmarks.refresh_rounds.policy_traffic import Asked, append, ask, lists_of, live_slates
from contracts.features import FeatureSpec
from contracts.slate_columns import from_table
from tests.sources.test_world import TINY
from training.losses.likelihood import list_log_probs
from training.model.gen_reranker import GenReranker
from training.settings import ModelSettings
from training.sources.feedback_table import FeedbackTable
from training.sources.simulator import START_MS, world_spec
from training.sources.world import World

SPEC: FeatureSpec = world_spec(TINY)


@lru_cache
def policy() -> GenReranker:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        settings = ModelSettings(width=16, encoder_layers=1, decoder_layers=1, attention_heads=2)
        return GenReranker(SPEC, settings).eval()


@lru_cache
def asked(count: int = 300) -> Asked:
    return ask(World(TINY), SPEC, count, (1, 2), START_MS, 3_600_000)


def test_logged_propensities_are_those_of_the_policy() -> None:
    temperature = 0.7
    order, log_prob = lists_of(policy(), asked(), temperature, seed=4)
    batch = next(asked().arrays.batches(len(order)))
    with torch.no_grad():
        z, prior = policy().encode(batch)
        logits = policy().block_logits(z, prior, torch.from_numpy(order)) / temperature
        expected = list_log_probs(logits, torch.from_numpy(order)).numpy()
    np.testing.assert_allclose(log_prob, expected, atol=1e-4)
    greedy, _ = lists_of(policy(), asked())
    assert (greedy != order).any(axis=1).mean() > 0.5, "it explores"
    other, _ = lists_of(policy(), asked(), temperature, seed=5)
    assert (other != order).any(axis=1).mean() > 0.5, "another round draws other lists"


def test_truth_and_feedback_agree() -> None:
    many = asked(4000)
    slates = live_slates(policy(), many, "r0001", 0.5, seed=6)
    shown = np.array([slate.exposed for slate in slates])
    truth = many.true_clicks(shown)
    clicks = np.array([sum(one.kind == "click" for one in slate.feedback) for slate in slates])
    assert abs(clicks.mean() - truth.mean()) < 4 * (clicks - truth).std() / len(clicks) ** 0.5
    by_ids = many.world.expected_of("click", slates, list(shown))
    np.testing.assert_allclose(truth, by_ids)


def test_rounds_add_to_the_table_what_refresh_reads(tmp_path: Path) -> None:
    first = live_slates(policy(), asked(), "r0001", 0.5, seed=1)
    later = ask(World(TINY), SPEC, 50, (1, 3), START_MS + 86_400_000, 3_600_000)
    second = live_slates(policy(), later, "r0002", 0.5, seed=2)
    append(tmp_path / "table", first, SPEC)
    seen = FeedbackTable(str(tmp_path / "table")).version
    append(tmp_path / "table", second, SPEC)
    table = FeedbackTable(str(tmp_path / "table"))
    read = from_table(table.rows(seen + 1, table.version), SPEC)
    assert [slate.request_id for slate in read] == [slate.request_id for slate in second]
    assert read[7].exposed == second[7].exposed
    assert read[7].log_prob == pytest.approx(second[7].log_prob)
    kinds = {(f.position, f.kind): f.value for f in second[7].feedback}
    assert {(f.position, f.kind): f.value for f in read[7].feedback if f.value} == kinds


def test_recovery_is_what_it_says() -> None:
    rng = np.random.default_rng(0)
    before, frozen = 0.3 + rng.normal(0, 0.1, 4000), 0.1 + rng.normal(0, 0.1, 4000)
    refreshed = frozen + 0.12 + rng.normal(0, 0.05, 4000)
    fresh = frozen + 0.16 + rng.normal(0, 0.05, 4000)
    found = recovery(before, frozen, refreshed, fresh)
    for interval, truth in (
        (found.loss, 0.2),
        (found.won_back, 0.12),
        (found.share, 0.6),
        (found.fresh_minus_frozen, 0.16),
        (found.share_of_fresh, 0.75),
    ):
        assert interval is not None
        assert interval.low < interval.estimate < interval.high
        assert abs(interval.estimate - truth) < 2 * (interval.high - interval.low)
        assert interval.high - interval.low < 0.06
    assert recovery(before, frozen, refreshed).share_of_fresh is None


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    gain = mean_interval(np.array([0.1, 0.2, 0.3]))
    rounds = tuple(
        Round(
            number=number,
            drift=0.0,
            exit_code=3 * (number == 2),
            champion="r0001",
            refusal="",
            slates=10,
            seconds=1.0,
            given=2.0,
            frozen=gain,
            refreshed=gain,
            difference=gain,
            reference_drift=1.0 * number,
            explored=gain,
        )
        for number in (1, 2, 3)
    )
    findings = Findings(
        traffic="stationary", world="fickle", lists=10, temperature=0.5, rounds=rounds
    )
    plot_rounds(findings, tmp_path / "rounds.png")
    assert (tmp_path / "rounds.png").stat().st_size > 5000


def test_the_summary_is_the_last_line() -> None:
    assert last_json('epoch 1\n{"a": 1}\n{"outcome": "refused"}\n') == {"outcome": "refused"}
