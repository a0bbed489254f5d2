"""Metrics against a worked example, brute force over single lists, and scikit-learn."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score, roc_auc_score

from tests.evaluation import oracle
from tests.evaluation.batches import padded, shuffled
from training.evaluation.alignment import align
from training.evaluation.metrics import (
    evaluate_orders,
    given_order,
    impressions,
    list_auc,
    ndcg,
    ndcg_shown,
    position_score,
)

KS = (1, 2, 3, 5, 10)


def test_worked_example() -> None:
    """Shown 4, 0, 2 with a click on 2; the policy puts 2, 5 (never shown), 4 and leaves out 0."""
    values = evaluate_orders(
        np.array([[2, 5, 4]]), np.array([[4, 0, 2]]), np.array([[0.0, 0.0, 1.0]]), ks=(1, 2)
    )
    assert {name: value.item() for name, value in values.items()} == {
        "ndcg@1": 1.0,
        "ndcg_with_feedback@1": 1.0,
        "ndcg_shown@1": 1.0,
        "map@1": 1.0,
        "ndcg@2": 1.0,
        "ndcg_with_feedback@2": 1.0,
        "ndcg_shown@2": 1.0,
        "map@2": 1.0,
        "ndcg": 1.0,
        "ndcg_with_feedback": 1.0,
        "ndcg_shown": 1.0,
        "map": 1.0,
        "gauc": 1.0,
        "unshown_share": pytest.approx(1 / 3),
    }


def test_worked_example_of_what_unshown_items_cost() -> None:
    """Shown 0, 1, 2, clicked 1; decoded 5 (not shown), 1, 0: place 2 of all, place 1 of shown."""
    values = evaluate_orders(
        np.array([[5, 1, 0]]), np.array([[0, 1, 2]]), np.array([[0.0, 1.0, 0.0]]), ks=(2,)
    )
    assert values["ndcg@2"].item() == pytest.approx(1 / math.log2(3))
    assert values["ndcg_shown@2"].item() == 1.0
    assert values["map@2"].item() == 0.5
    assert values["gauc"].item() == 1.0


def test_left_out_items_share_their_places() -> None:
    """Clicks on both left-out items or on one of them: nothing is known of their order."""
    aligned = align(np.array([[0]]), np.array([[0, 1, 2]]), np.array([[0.0, 1.0, 0.0]]))
    mean = (1 / math.log2(3) + 1 / math.log2(4)) / 2
    assert ndcg_shown(aligned).item() == pytest.approx(mean)
    assert list_auc(aligned).item() == pytest.approx((0 + 0.5) / 2)


@given(st.lists(oracle.lists(), min_size=1, max_size=5), st.integers(0, 2))
def test_equal_to_brute_force(lists: list[oracle.List], extra: int) -> None:
    order, exposed, feedback = padded(lists, extra)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = evaluate_orders(order, exposed, feedback, KS)
    width = order.shape[1]
    for k, suffix in [*((k, f"@{k}") for k in KS), (99, "")]:
        expected = {
            "ndcg": [oracle.ndcg(one, k) for one in lists],
            "ndcg_shown": [oracle.ndcg_shown(one, k) for one in lists],
            "map": [oracle.average_precision(one, k) for one in lists],
            "ndcg_with_feedback": [
                oracle.ndcg(one, k) if any(one.feedback) else math.nan for one in lists
            ],
        }
        for name, each in expected.items():
            np.testing.assert_allclose(values[name + suffix], each, atol=1e-12, err_msg=name)
    labels = [[value > 0 for value in one.feedback] for one in lists]
    scores = [oracle.position_scores(one, width) for one in lists]
    gauc = [oracle.auc(s, label) for s, label in zip(scores, labels)]
    np.testing.assert_allclose(values["gauc"], gauc, atol=1e-12)
    np.testing.assert_allclose(values["unshown_share"], list(map(oracle.unshown_share, lists)))


@given(st.lists(oracle.lists(), min_size=1, max_size=5), st.integers(1, 3))
def test_padding_changes_nothing(lists: list[oracle.List], extra: int) -> None:
    narrow = evaluate_orders(*padded(lists), KS)
    wide = evaluate_orders(*padded(lists, extra), KS)
    for name, values in narrow.items():
        np.testing.assert_allclose(values, wide[name], atol=1e-12, err_msg=name)


@pytest.mark.parametrize("k", [1, 3, 5, 10, None])
def test_ndcg_is_scikit_learns(k: int | None) -> None:
    order, exposed, feedback = shuffled(200, 8, 8, 8, seed=1)
    feedback = feedback * np.random.default_rng(2).integers(1, 4, feedback.shape)  # graded
    aligned = align(order, exposed, feedback)
    gains = 2**feedback - 1
    expected = [
        ndcg_score(gains[[row]], position_score(aligned)[[row]], k=k) for row in range(len(order))
    ]
    np.testing.assert_allclose(ndcg(aligned, k), expected)
    np.testing.assert_allclose(ndcg_shown(aligned, k), expected)
    linear = [
        ndcg_score(feedback[[row]], position_score(aligned)[[row]], k=k)
        for row in range(len(order))
    ]
    np.testing.assert_allclose(ndcg(aligned, k, "linear"), linear)


@pytest.mark.parametrize("k", [1, 3, 8, None])
def test_ndcg_shown_averages_ties_as_scikit_learn_does(k: int | None) -> None:
    """m > n: 20 candidates, 8 shown, 6 decoded. Items left out are ties at the end."""
    aligned = align(*shuffled(300, 20, 8, 6, seed=3))
    assert (aligned.rank == 6).sum() > 300
    expected = [
        ndcg_score(2 ** aligned.feedback[[row]] - 1, position_score(aligned)[[row]], k=k)
        for row in range(300)
    ]
    np.testing.assert_allclose(ndcg_shown(aligned, k), expected)


def test_average_precision_is_scikit_learns() -> None:
    order, exposed, feedback = shuffled(200, 8, 8, 8, seed=4)
    score = position_score(align(order, exposed, feedback))
    expected = [
        average_precision_score(feedback[row], score[row]) if feedback[row].any() else 0.0
        for row in range(200)
    ]
    np.testing.assert_allclose(evaluate_orders(order, exposed, feedback)["map"], expected)


@pytest.mark.parametrize(("candidates", "decoded"), [(8, 8), (20, 6)])
def test_list_auc_is_scikit_learns(candidates: int, decoded: int) -> None:
    aligned = align(*shuffled(200, candidates, 8, decoded, seed=5))
    score = position_score(aligned)
    for row, value in enumerate(list_auc(aligned)):
        if 0 < aligned.feedback[row].sum() < 8:
            assert value == pytest.approx(roc_auc_score(aligned.feedback[row], score[row]))
        else:
            assert math.isnan(value)
    assert impressions(aligned).tolist() == [8.0] * 200


def test_the_best_order_scores_one_and_the_worst_least() -> None:
    _, exposed, feedback = shuffled(50, 6, 6, 6, seed=6)
    best = np.take_along_axis(exposed, np.argsort(-feedback, axis=1), axis=1)
    values = evaluate_orders(best, exposed, feedback)
    worst = evaluate_orders(best[:, ::-1], exposed, feedback)
    for name in ("ndcg", "ndcg_shown", "map", "gauc"):
        defined = feedback.any(axis=1) & ~np.isnan(values["gauc"])
        np.testing.assert_allclose(values[name][defined], 1.0)
        assert (worst[name][defined] < 1).all()


def test_given_order() -> None:
    assert given_order(np.array([2, 5]), 3).tolist() == [[0, 1, -1], [0, 1, 2]]


ORDER, EXPOSED, FEEDBACK = np.array([[0, 1]]), np.array([[0, 1]]), np.array([[0.0, 1.0]])


@pytest.mark.parametrize(
    ("order", "exposed", "feedback", "message"),
    [
        (np.array([[0, 0]]), EXPOSED, FEEDBACK, "order of list 0 names a candidate twice"),
        (ORDER, np.array([[1, 1]]), FEEDBACK, "exposed of list 0 names a candidate twice"),
        (ORDER, EXPOSED, -FEEDBACK, "feedback of shown items must be finite and >= 0"),
        (ORDER, EXPOSED, FEEDBACK * np.nan, "feedback of shown items must be finite and >= 0"),
        (ORDER, EXPOSED, FEEDBACK * 31, "Scale continuous feedback"),
        (ORDER, EXPOSED, FEEDBACK[:, :1], "allowed: "),
        (ORDER[0], EXPOSED, FEEDBACK, "allowed: "),
        (np.vstack([ORDER, ORDER]), EXPOSED, FEEDBACK, "2 decoded lists for 1 shown ones"),
    ],
)
def test_refusals(order: object, exposed: object, feedback: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_orders(order, exposed, feedback)  # type: ignore[arg-type]


def test_linear_gain_takes_unscaled_feedback() -> None:
    assert evaluate_orders(ORDER, EXPOSED, FEEDBACK * 1000, gain="linear")["ndcg"].shape == (1,)


def test_cutoffs_start_at_one() -> None:
    with pytest.raises(ValueError, match="allowed: 1 and more"):
        evaluate_orders(ORDER, EXPOSED, FEEDBACK, ks=(0,))
