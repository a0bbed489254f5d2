"""Guardrails: false alarms at the limit itself, detections beyond it, and what is unknown."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from contracts.experiment_metrics import Guardrail
from deploy.analysis.guardrails import judge_feedback, judge_latency
from deploy.analysis.lifts import pair_of
from deploy.analysis.prometheus import Latency
from deploy.analysis.reading import metrics_of
from deploy.analysis.units import Lists
from tests.analysis.tables import CLICKS, HIDES, experiment

KINDS = ("click", "watch_time", "hide")


def rows(clicks: np.ndarray, hides: np.ndarray, fallbacks: np.ndarray, sizes: np.ndarray) -> Lists:
    """Units of two arms, dealt by turns, with sizes lists each."""
    count = len(sizes)
    sums = np.stack([sizes, 4 * sizes, fallbacks, clicks, 0 * sizes, hides], axis=1).astype(float)
    none = np.zeros(count, np.int64)
    return Lists(np.arange(count), none, none, np.arange(count) % 2, sums)


@pytest.mark.parametrize("rail", [
    Guardrail(metric=HIDES, limit=0.2),
    Guardrail(metric=CLICKS, limit=0.05),
    Guardrail(metric="fallback_share", limit=0.01),
])  # fmt: skip
@pytest.mark.parametrize("beyond", [False, True])
def test_at_the_limit_false_alarms_are_rare_and_far_beyond_it_sure(
    rail: Guardrail, beyond: bool
) -> None:
    # The arm is worse by exactly what is allowed (or by far more), and looked at 15 times.
    one, repeats, looks, alpha = experiment(), 80, 15, 0.05
    assert list(metrics_of(one)) == ["clicks", "watch", "hides"]
    rng, broken = np.random.default_rng(0), 0
    worse = 4.0 if beyond else 1.0
    for _ in range(repeats):
        count = 1200
        taste = rng.lognormal(0, 0.5, count)
        arm = np.arange(count) % 2 == 1
        rates = {
            "hide": 0.05 * np.where(arm, 1 + worse * 0.2, 1.0),
            "click": 0.5 * np.where(arm, 1 - worse * 0.05, 1.0),
            "fallback": np.where(arm, 0.01 + worse * 0.01, 0.01),
        }
        totals = {name: np.zeros(count) for name in rates}
        sizes = np.zeros(count)
        for _ in range(looks):
            lists = rng.poisson(0.7, count)
            sizes += lists
            for name, rate in rates.items():
                totals[name] += rng.poisson(lists * taste * rate)
            seen = sizes > 0
            every = rows(totals["click"][seen], totals["hide"][seen], totals["fallback"][seen],
                         sizes[seen])  # fmt: skip
            every = Lists(every.unit, every.time, every.stage, arm[seen].astype(np.int64),
                          every.sums)  # fmt: skip
            judged = judge_feedback(rail, "new", pair_of(every, 1), KINDS, one, alpha)
            if judged.state == "broken":
                broken += 1
                break
    if beyond:
        assert broken > 0.6 * repeats
    else:
        assert broken <= stats.binom.ppf(0.999, repeats, alpha)


def test_bound_and_limit_agree_with_the_state() -> None:
    rng = np.random.default_rng(1)
    for scale in (0.5, 1.0, 1.5, 3.0):
        count = 3000
        arm = np.arange(count) % 2 == 1
        hides = rng.poisson(0.2 * np.where(arm, scale, 1.0), count)
        every = rows(np.ones(count), hides, np.zeros(count), np.ones(count))
        rail = Guardrail(metric=HIDES, limit=0.3)
        judged = judge_feedback(rail, "new", pair_of(every, 1), KINDS, experiment(), 0.05)
        assert judged.value is not None
        assert judged.bound is not None
        assert judged.value == pytest.approx(hides[arm].mean() / hides[~arm].mean() - 1)
        assert judged.bound < judged.value
        assert (judged.state == "broken") == (judged.bound > judged.limit)
        quiet = Guardrail(metric="fallback_share", limit=0.01)
        judged = judge_feedback(quiet, "new", pair_of(every, 1), KINDS, experiment(), 0.05)
        assert (judged.state, judged.value) == ("ok", 0.0)


def test_a_control_at_zero_and_hides_in_the_arm() -> None:
    count = 2000
    arm = np.arange(count) % 2 == 1
    hides = np.where(arm & (np.arange(count) % 5 == 0), 1.0, 0.0)
    every = rows(np.ones(count), hides, np.zeros(count), np.ones(count))
    rail = Guardrail(metric=HIDES, limit=0.1)
    judged = judge_feedback(rail, "new", pair_of(every, 1), KINDS, experiment(), 0.05)
    assert judged.state == "broken"  # any rise over nothing is over ten per cent
    assert judged.value == pytest.approx(0.2)


def test_few_units_are_unknown() -> None:
    every = rows(np.ones(60), np.ones(60), np.zeros(60), np.ones(60))
    rail = Guardrail(metric=HIDES, limit=0.1)
    judged = judge_feedback(rail, "new", pair_of(every, 1), KINDS, experiment(), 0.05)
    assert (judged.state, judged.value) == ("unknown", None)
    assert "30 units" in judged.why


def latency(slow: float, requests: float = 10_000) -> Latency:
    counts = (0.5 * requests, (1 - slow) * requests, (1 - slow / 2) * requests, requests)
    return Latency((10.0, 20.0, 50.0, float("inf")), counts)


def test_latency() -> None:
    rail = Guardrail(metric="latency_p99_ms", limit=20)
    assert judge_latency(rail, "new", latency(0.005), 0.05).state == "ok"
    assert judge_latency(rail, "new", latency(0.011), 0.05).state == "ok"  # no evidence
    broken = judge_latency(rail, "new", latency(0.03), 0.05)
    assert broken.state == "broken"
    assert broken.value == 50.0  # the last edge that is known
    assert "3.00% of 10000 requests" in broken.why
    # A limit between two edges is judged at the upper one: nothing slower is surely slower.
    between = Guardrail(metric="latency_p99_ms", limit=30)
    assert judge_latency(between, "new", latency(0.015), 0.05).state == "ok"
    for what, words in (
        (latency(0.5, 40), "40 requests"),
        ("Prometheus is away", "Prometheus is away"),
    ):
        unknown = judge_latency(rail, "new", what, 0.05)
        assert unknown.state == "unknown"
        assert words in unknown.why
    far = judge_latency(Guardrail(metric="latency_p99_ms", limit=80), "new", latency(0.01), 0.05)
    assert far.state == "unknown"
    assert "widen its buckets" in far.why


def test_quantiles_are_those_of_promql() -> None:
    # histogram_quantile interpolates within the bucket, from 0 in the first.
    one = Latency((10.0, 20.0, float("inf")), (50.0, 90.0, 100.0))
    assert one.quantile_ms(0.25) == pytest.approx(5.0)
    assert one.quantile_ms(0.7) == pytest.approx(15.0)
    assert one.quantile_ms(0.99) == 20.0
    assert Latency((), ()).quantile_ms(0.5) is None


@pytest.mark.parametrize(("units", "state"), [(198, "unknown"), (240, "broken")])
def test_an_arm_that_falls_back_always_while_the_control_never_does(units: int, state: str) -> None:
    """A dead release: no unit differs from another of its arm, so that no variance is seen."""
    nothing, sizes = np.zeros(units), np.full(units, 3.0)
    dead = sizes * (np.arange(units) % 2)
    pair = pair_of(rows(nothing, nothing, dead, sizes), 1)
    assert pair is not None
    for limit in (0.01, 0.5):
        rail = Guardrail(metric="fallback_share", limit=limit)
        status = judge_feedback(rail, "new", pair, KINDS, experiment(), 0.05)
        assert status.state == state, status.why
    as_allowed = Guardrail(metric="fallback_share", limit=1.0)
    assert judge_feedback(as_allowed, "new", pair, KINDS, experiment(), 0.05).state != "broken"
