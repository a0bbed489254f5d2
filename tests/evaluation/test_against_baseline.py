"""Comparisons: pairing, defined metrics only, and a report that reads back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from sklearn.metrics import roc_auc_score

from contracts.reading import read_json
from tests.evaluation.batches import shuffled
from training.evaluation.against_baseline import Comparison, compare
from training.evaluation.metrics import evaluate_orders, given_order
from training.evaluation.report import comparison_table, write_comparison

ORDER, EXPOSED, FEEDBACK = shuffled(300, 12, 6, 6, seed=1)
USERS = np.random.default_rng(2).integers(0, 60, 300)
ORDERS = {"given": given_order(np.full(300, 12), 6), "other": ORDER, "same": ORDER}
TRUTH = np.random.default_rng(3).random(300)


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compare(
        ORDERS,
        EXPOSED,
        FEEDBACK,
        USERS,
        baseline="given",
        ks=(3,),
        scores={"given": -EXPOSED, "other": FEEDBACK * 2.0},
        extra={"true_clicks": {"given": TRUTH, "other": TRUTH + 0.25}},
        resamples=200,
    )


def test_values_are_the_means(comparison: Comparison) -> None:
    for method, order in ORDERS.items():
        for metric, values in evaluate_orders(order, EXPOSED, FEEDBACK, (3,)).items():
            result = comparison.get(metric, method)
            assert result.value.estimate == pytest.approx(np.nanmean(values))
            assert result.lists == (~np.isnan(values)).sum()
            assert result.value.low <= result.value.estimate <= result.value.high


def test_differences_are_against_the_baseline(comparison: Comparison) -> None:
    for result in comparison.results:
        if result.method == "given":
            assert result.difference is None
        else:
            reference = comparison.get(result.metric, "given")
            assert result.difference is not None
            assert result.difference.estimate == pytest.approx(
                result.value.estimate - reference.value.estimate
            )


def test_equal_orders_have_equal_results(comparison: Comparison) -> None:
    """Pairing: the same draws serve every method."""
    for result in comparison.results:
        if result.method == "same":
            assert result.difference == comparison.get(result.metric, "other").difference


def test_a_constant_gain_has_no_uncertainty(comparison: Comparison) -> None:
    gain = comparison.get("true_clicks", "other")
    assert gain.difference is not None
    assert (gain.difference.low, gain.difference.high) == pytest.approx((0.25, 0.25))
    assert gain.value.high - gain.value.low > 0.01


def test_pooled_auc(comparison: Comparison) -> None:
    place = [
        [list(order).index(item) if item in order else 6 for item in exposed]
        for order, exposed in zip(ORDER, EXPOSED)
    ]
    expected = roc_auc_score(FEEDBACK.ravel(), -np.array(place).ravel())
    assert comparison.get("auc", "other").value.estimate == pytest.approx(expected)
    assert comparison.get("auc_score", "other").value.estimate == 1.0


def test_metrics_that_are_not_defined_are_absent() -> None:
    found = compare(ORDERS, EXPOSED, FEEDBACK * 0, USERS, baseline="given", resamples=20)
    assert found.get("ndcg", "other").value.estimate == 0
    for metric in ("auc", "gauc", "ndcg_with_feedback", "auc_score"):
        with pytest.raises(KeyError, match=f"no {metric} of other"):
            found.get(metric, "other")


def test_the_seed_decides(comparison: Comparison) -> None:
    again = [
        compare(ORDERS, EXPOSED, FEEDBACK, USERS, baseline="given", resamples=50, seed=seed)
        for seed in (1, 1, 2)
    ]
    assert again[0] == again[1]
    assert again[0] != again[2]


def test_report_reads_back_and_shows_every_result(comparison: Comparison, tmp_path: Path) -> None:
    write_comparison(tmp_path / "evaluation.json", comparison)
    assert read_json(tmp_path / "evaluation.json", Comparison) == comparison
    console = Console(width=120, record=True, file=(tmp_path / "out").open("w"))
    console.print(comparison_table(comparison))
    text = console.export_text()
    for result in comparison.results:
        assert result.metric in text
        assert f"{result.value.estimate:.4f}" in text
        if result.difference is not None:
            assert f"{result.difference.low:+.4f} to {result.difference.high:+.4f}" in text
    assert "300 lists of 60 users" in text


def test_refusals() -> None:
    with pytest.raises(ValueError, match="baseline is 'none'; allowed: given, other, same"):
        compare(ORDERS, EXPOSED, FEEDBACK, USERS, baseline="none")
    with pytest.raises(ValueError, match="truth of given has shape"):
        compare(
            ORDERS,
            EXPOSED,
            FEEDBACK,
            USERS,
            baseline="given",
            extra={"truth": {"given": TRUTH[1:]}},
        )
