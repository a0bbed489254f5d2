"""Sample-ratio mismatch: against scipy, under ramps, and with lost assignments."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks.aa_repeats import lost_assignments
from contracts.assignment import assign_many
from deploy.analysis.srm import LIMIT, check_ratio, unit_counts
from tests.analysis.tables import experiment


def test_is_pearsons_chi_square() -> None:
    counts, weights = np.array([[480, 330, 190]]), np.array([[0.5, 0.3, 0.2]])
    found = check_ratio(counts, weights, ("a", "b", "c"))
    theirs = stats.chisquare(counts[0], 1000 * weights[0])
    assert found.chi2 == pytest.approx(theirs.statistic)
    assert found.p == pytest.approx(theirs.pvalue)
    assert found.degrees == 2
    assert found.observed == {"a": 480, "b": 330, "c": 190}
    assert found.expected == pytest.approx({"a": 500, "b": 300, "c": 200})


def test_a_loss_of_two_per_cent_is_caught_and_no_loss_is_not() -> None:
    found = lost_assignments(repeats=4, users=600_000, share=0.02, seed=1)
    # Of 600,000 users z is 7.8 on average: four in a million such losses escape p < 0.001.
    assert found["alarms"] == 4
    assert found["alarms without loss"] == 0


def test_false_alarms_are_as_rare_as_their_level() -> None:
    rng = np.random.default_rng(0)
    weights = np.array([[0.9, 0.1], [0.5, 0.5]])
    alarms = 0
    for _ in range(4000):
        counts = np.array([rng.multinomial(3000, row) for row in weights])
        alarms += check_ratio(counts, weights, ("a", "b")).ok is False
    assert alarms <= stats.binom.ppf(0.999, 4000, LIMIT)


def test_a_ramp_is_no_mismatch() -> None:
    # 5,000 users are first seen at 10 % and 5,000 at 50 %; those seen early stay known.
    users = [f"u{number}" for number in range(10_000)]
    small, large = experiment(), experiment()
    arms = [
        assign_many(_weighted(one, weight), users) for one, weight in ((small, 0.1), (large, 0.5))
    ]
    first_stage = np.repeat([0, 1], 5000)
    first_arm = np.where(first_stage == 0, arms[0], arms[1])
    weights = np.array([[0.9, 0.1], [0.5, 0.5]])
    counts = unit_counts(first_stage, first_arm, 2, 2)
    assert check_ratio(counts, weights, ("control", "new")).ok
    # What a test of the totals against today's weights would say:
    assert check_ratio(counts.sum(axis=0)[None], weights[1:], ("control", "new")).ok is False


def _weighted(one: object, weight: float) -> object:
    import msgspec

    arms = one.arms  # type: ignore[attr-defined]
    changed = (
        msgspec.structs.replace(arms[0], weight=round(1 - weight, 4)),
        msgspec.structs.replace(arms[1], weight=weight, ceiling=0.5),
    )
    return msgspec.structs.replace(one, arms=changed)


def test_few_units_and_weights_of_zero() -> None:
    halves = np.array([[0.5, 0.5]])
    few = check_ratio(np.array([[4, 0]]), halves, ("a", "b"))
    assert few.ok is None
    assert few.p is None
    assert check_ratio(np.zeros((1, 2), np.int64), halves, ("a", "b")).ok is None
    off = np.array([[1.0, 0.0]])
    assert check_ratio(np.array([[100, 0]]), off, ("a", "b")).ok is None
    stray = check_ratio(np.array([[100, 3]]), off, ("a", "b"))
    assert stray.ok is False
    assert "weight was 0" in stray.why
    gone = check_ratio(np.array([[100, 0]]), halves, ("a", "b"))
    assert gone.ok is False
    assert "b has -100.00%" in gone.why or "a has +100.00%" in gone.why
