"""Off-policy estimators against every possible log of a tiny world, and what must not change them.

With exact propensities the expectation of an unbiased estimator over all lists that could have been
logged is the target's value, to the last digits.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.plackett_luce import PlackettLuce, all_lists
from training.evaluation.off_policy.comparing import Weighing, compare_policies
from training.evaluation.off_policy.estimate import OffPolicySettings
from training.evaluation.off_policy.estimators import (
    Prediction,
    doubly_robust,
    interval_of,
    snips,
    value_of,
)
from training.evaluation.off_policy.logged import Logged
from training.evaluation.off_policy.weights import (
    before,
    cascade_weights,
    clip_weights,
    effective_sample_size,
    item_position_weights,
)

CANDIDATES, LENGTH = 4, 3
LISTS = all_lists(CANDIDATES, LENGTH)
RNG = np.random.default_rng(0)


def world(seed: int) -> tuple[PlackettLuce, PlackettLuce, np.ndarray, np.ndarray]:
    """Logging and target policy at each possible list (as one request each), and their chances."""
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(2, 1, CANDIDATES)).repeat(len(LISTS), axis=1)
    logging, target = PlackettLuce(keys[0]), PlackettLuce(keys[1])
    p_logging, p_target = (np.exp(one.log_prob(LISTS).sum(1)) for one in (logging, target))
    np.testing.assert_allclose([p_logging.sum(), p_target.sum()], 1)
    return logging, target, p_logging, p_target


def rewards(seed: int, of_prefix: bool) -> np.ndarray:
    """Expected reward [P, N] of each position of each list: of the item there, or of the prefix."""
    table: dict[tuple[int, ...], float] = {}
    rng = np.random.default_rng(seed)
    out = np.zeros(LISTS.shape)
    for row, order in enumerate(LISTS.tolist()):
        for place in range(LENGTH):
            key = tuple(order[: place + 1]) if of_prefix else (place, order[place])
            out[row, place] = table.setdefault(key, rng.normal() + 2)
    return out


def single(row: int, log_prob: np.ndarray, reward: np.ndarray) -> Logged:
    """A log of one slate."""
    shown = np.ones((1, LENGTH), bool)
    return Logged(log_prob[row : row + 1], reward[row : row + 1], shown, np.array(["u"]))


def picked(values_PNM: np.ndarray) -> np.ndarray:
    return np.take_along_axis(values_PNM, LISTS[:, :, None], axis=2)[:, :, 0]


def expectation(
    seed: int, assumption: str, of_prefix: bool, q_of_prefix: np.ndarray | None
) -> tuple[float, float]:
    """Of the estimator that is not normalised, over all logs of one slate; and the truth.

    ``q_of_prefix`` [P, N, M], any numbers; the item-position estimator takes one row of it.
    """
    logging, target, p_logging, p_target = world(seed)
    reward = rewards(seed + 1, of_prefix)
    shown = np.ones(LISTS.shape, bool)
    if assumption == "cascade":
        weights = cascade_weights(target.log_prob(LISTS), logging.log_prob(LISTS), shown)
        ahead, given_prefix, q = target.next_item(LISTS), True, q_of_prefix
    else:
        ahead, given_prefix, q = target.marginals(LENGTH), False, q_of_prefix
        weights = item_position_weights(picked(ahead), picked(logging.marginals(LENGTH)), shown)
        q = None if q is None else np.broadcast_to(q[:1], q.shape)
    estimates = []
    for row in range(len(LISTS)):
        log = single(row, logging.log_prob(LISTS), reward)
        w = weights[row : row + 1]
        terms = snips(log, w)
        if q is not None:
            prediction = Prediction(
                picked(q)[row : row + 1], (ahead * q).sum(2)[row : row + 1], given_prefix
            )
            terms = doubly_robust(log, w, before(w), prediction)
        estimates.append(value_of(terms, self_normalised=False))
    return float(p_logging @ estimates), float(p_target @ reward.sum(axis=1))


def q_by_prefix(seed: int) -> np.ndarray:
    """Any prediction [P, N, M] that is a function of the prefix and the candidate."""
    table: dict[tuple[int, ...], np.ndarray] = {}
    rng = np.random.default_rng(seed)
    out = np.zeros((*LISTS.shape, CANDIDATES))
    for row, order in enumerate(LISTS.tolist()):
        for place in range(LENGTH):
            out[row, place] = table.setdefault(
                tuple(order[:place]), rng.normal(size=CANDIDATES) * 5
            )
    return out


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("assumption", ["cascade", "item_position"])
@pytest.mark.parametrize("predicted", [False, True])
def test_unbiased_where_the_assumption_holds(seed: int, assumption: str, predicted: bool) -> None:
    """Whatever the prediction: garbage here."""
    q = q_by_prefix(seed + 9) if predicted else None
    found, truth = expectation(seed, assumption, assumption == "cascade", q)
    assert found == pytest.approx(truth, abs=1e-10)


@pytest.mark.parametrize("predicted", [False, True])
def test_cascade_holds_for_item_position_rewards_too(predicted: bool) -> None:
    q = q_by_prefix(3) if predicted else None
    found, truth = expectation(5, "cascade", False, q)
    assert found == pytest.approx(truth, abs=1e-10)


def test_marginals_of_a_tiny_world_are_the_sums_over_its_lists() -> None:
    logging, _, p_logging, _ = world(4)
    exact = np.zeros((LENGTH, CANDIDATES))
    for order, p in zip(LISTS, p_logging):
        exact[np.arange(LENGTH), order] += p
    np.testing.assert_allclose(logging.marginals(LENGTH)[0], exact)


def test_marginals_of_few_draws_leave_item_position_unbiased_on_what_they_reach() -> None:
    """One drawn list beside the logged one, over all pairs of both: what is missing is known.

    An item that both lists hold before position k has no chance there by their mean, hence no
    weight: that happens with P(item before k)^2, and nothing else is lost.
    """
    logging, target, p_logging, p_target = world(6)
    reward = rewards(7, of_prefix=False)
    wanted, ahead = target.marginals(LENGTH), logging.next_item(LISTS)
    found = 0.0
    for drawn, p in zip(ahead, p_logging):
        own = picked(np.broadcast_to(drawn, ahead.shape))
        weights = item_position_weights(
            picked(wanted), (picked(ahead) + own) / 2, np.ones(LISTS.shape, bool)
        )
        found += p * p_logging @ (weights * reward).sum(axis=1)
    lost = 0.0
    for place in range(LENGTH):
        for item in range(CANDIDATES):
            held = p_logging @ (LISTS[:, :place] == item).any(axis=1)
            earned = reward[:, place][LISTS[:, place] == item][0]
            lost += held**2 * wanted[0, place, item] * earned
    assert lost > 0.1
    assert found == pytest.approx(p_target @ reward.sum(axis=1) - lost, abs=1e-10)


def test_item_position_is_biased_where_rewards_depend_on_the_prefix() -> None:
    found, truth = expectation(0, "item_position", True, None)
    assert abs(found - truth) > 0.05


def test_a_perfect_prediction_leaves_no_variance_but_that_of_the_prefix() -> None:
    """q = r: every residual is 0, and what is left is the target's own expectation."""
    logging, target, _, p_target = world(1)
    reward = rewards(2, of_prefix=False)
    q = np.zeros((*LISTS.shape, CANDIDATES))
    for place in range(LENGTH):
        for item in range(CANDIDATES):
            q[:, place, item] = reward[:, place][LISTS[:, place] == item][0]
    ahead = target.marginals(LENGTH)
    for row in range(len(LISTS)):
        log = single(row, logging.log_prob(LISTS), reward)
        prediction = Prediction(
            picked(q)[row : row + 1], (ahead * q).sum(2)[row : row + 1], given_prefix=False
        )
        found = value_of(doubly_robust(log, np.full((1, LENGTH), 7.0), log.reward, prediction))
        assert found == pytest.approx(p_target @ reward.sum(1))


@st.composite
def logs(draw: st.DrawFn) -> tuple[Logged, np.ndarray, Prediction]:
    """Slates of several lengths and users, weights, and a prediction."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    slates, length = draw(st.integers(3, 20)), draw(st.integers(1, 5))
    ends = rng.integers(1, length + 1, slates)
    ends[:2] = length
    shown = np.arange(length) < ends[:, None]
    rubbish = np.where(shown, 0.0, np.nan)
    log = Logged(
        -rng.exponential(size=shown.shape) + rubbish,
        rng.exponential(size=shown.shape) + rubbish,
        shown,
        np.array([f"u{one}" for one in np.r_[0, 1, rng.integers(0, 5, slates - 2)]], object),
    )
    weights = rng.exponential(size=shown.shape) * shown
    q = rng.normal(size=(2, *shown.shape))
    return log, weights, Prediction(q[0], q[1], given_prefix=draw(st.booleans()))


def both(log: Logged, weights: np.ndarray, q: Prediction) -> list:
    return [snips(log, weights), doubly_robust(log, weights, before(weights), q)]


@settings(max_examples=50)
@given(logs(), st.floats(-3, 3))
def test_a_constant_more_for_each_position_is_a_constant_more(
    made: tuple[Logged, np.ndarray, Prediction], more: float
) -> None:
    log, weights, q = made
    shifted = Logged(log.log_prob, log.reward + more, log.shown, log.user)
    moved = Prediction(q.logged + more, q.expected + more, q.given_prefix)
    longer = more * log.shown.sum() / len(log)
    for one, other in zip(both(log, weights, q), both(shifted, weights, moved)):
        assert value_of(other) == pytest.approx(value_of(one) + longer, abs=1e-9)
    # SNIPS alone needs no help of the prediction; DR shifts with the rewards alone too.
    other = doubly_robust(shifted, weights, before(weights), q)
    assert value_of(other) == pytest.approx(value_of(both(log, weights, q)[1]) + longer, abs=1e-9)


@settings(max_examples=50)
@given(logs(), st.randoms(use_true_random=False))
def test_the_order_of_slates_and_names_of_users_do_not_matter(
    made: tuple[Logged, np.ndarray, Prediction], random: object
) -> None:
    log, weights, q = made
    rows = np.random.default_rng(len(log)).permutation(len(log))
    renamed = Logged(
        log.log_prob[rows],
        log.reward[rows],
        log.shown[rows],
        np.array([f"x{user[::-1]}" for user in log.user[rows]], object),
    )
    mixed = Prediction(q.logged[rows], q.expected[rows], q.given_prefix)
    for one, other in zip(both(log, weights, q), both(renamed, weights[rows], mixed)):
        found, again = interval_of(one, log), interval_of(other, renamed)
        if found is None or again is None:
            assert found is None
            assert again is None
            continue
        assert (again.estimate, again.low) == pytest.approx((found.estimate, found.low), abs=1e-9)


@settings(max_examples=50)
@given(logs())
def test_the_logging_policy_itself_earns_the_mean(
    made: tuple[Logged, np.ndarray, Prediction],
) -> None:
    log, _, _ = made
    weights = cascade_weights(log.log_prob, log.log_prob, log.shown)
    np.testing.assert_array_equal(weights, log.shown)
    mean = np.where(log.shown, log.reward, 0).sum(axis=1).mean()
    assert value_of(snips(log, weights)) == pytest.approx(mean)
    # A prediction whose expectation is its own value on average leaves the mean alone.
    q = RNG.normal(size=log.shown.shape)
    own = Prediction(q, q, given_prefix=True)
    assert value_of(doubly_robust(log, weights, before(weights), own)) == pytest.approx(mean)


@settings(max_examples=50)
@given(logs())
def test_padding_is_never_read(made: tuple[Logged, np.ndarray, Prediction]) -> None:
    """The log holds NaN there; so may predictions and targets."""
    log, weights, q = made
    dirty = np.where(log.shown, 0.0, np.nan)
    again = Prediction(q.logged + dirty, q.expected + dirty, q.given_prefix)
    for one, other in zip(both(log, weights, q), both(log, weights, again)):
        assert value_of(one) == value_of(other)
    target = -np.ones(log.shown.shape)
    expected = cascade_weights(target, log.log_prob, log.shown)
    np.testing.assert_array_equal(
        cascade_weights(target + dirty, log.log_prob, log.shown), expected
    )


def test_a_slow_jackknife_gives_the_same_interval() -> None:
    rng = np.random.default_rng(4)
    users = rng.integers(0, 12, 60)
    shown = np.arange(4) < rng.integers(1, 5, 60)[:, None]
    log = Logged(-rng.random(shown.shape), rng.random(shown.shape), shown, users)
    weights = rng.exponential(size=shown.shape)
    q = Prediction(*rng.random((2, *shown.shape)), given_prefix=True)

    def by_hand(rows: np.ndarray) -> float:
        total = 0.0
        for place in range(4):
            mine = rows[shown[rows, place]]
            w = weights[mine, place]
            u = np.ones(len(mine)) if place == 0 else weights[mine, place - 1]
            rest = w @ (log.reward[mine, place] - q.logged[mine, place]) / w.sum()
            total += len(mine) / len(rows) * (rest + u @ q.expected[mine, place] / u.sum())
        return total

    terms = doubly_robust(log, weights, before(weights), q)
    without = np.array([by_hand(np.flatnonzero(users != user)) for user in np.unique(users)])
    error = np.sqrt(((without - without.mean()) ** 2).sum() * 11 / 12)
    found = interval_of(terms, log)
    assert found is not None
    assert found.estimate == pytest.approx(by_hand(np.arange(60)))
    assert (found.high - found.low) / 2 == pytest.approx(2.200985 * error)  # t of 11
    # The difference to itself is nothing, for sure.
    nothing = interval_of(terms, log, minus=terms)
    assert nothing is not None
    assert (nothing.estimate, nothing.low, nothing.high) == (0, 0, 0)


def test_weights_of_what_is_never_done_are_nothing_from_there_on() -> None:
    shown = np.array([[True, True, True], [True, True, False]])
    logged = np.log([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]])
    target = np.log([[0.25, 1.0, 0.5], [1.0, 1e-300, 0.5]])
    target[0, 1] = -np.inf
    weights = cascade_weights(target, logged, shown)
    np.testing.assert_allclose(weights, [[0.5, 0, 0], [2.0, 0, 0]], atol=1e-200)
    assert np.isfinite(
        cascade_weights(np.zeros((1, 2)), np.full((1, 2), -600.0), shown[:1, :2])
    ).all()


def test_clipping_and_effective_sample_size() -> None:
    weights = np.array([[4.0, 1.0], [1.0, 9.0], [1.0, 0.0]])
    shown = np.array([[True, True], [True, True], [True, False]])
    clipped, share = clip_weights(weights, shown, 2.0)
    assert clipped.tolist() == [[2, 1], [1, 2], [1, 0]]
    assert share == pytest.approx(2 / 5)
    assert clip_weights(weights, shown, None) == (pytest.approx(weights), 0.0)
    np.testing.assert_allclose(effective_sample_size(weights, shown), [36 / 18, 100 / 82])
    empty = effective_sample_size(np.zeros((2, 2)), np.array([[True, False], [True, False]]))
    assert empty[0] == 0
    assert np.isnan(empty[1])


@pytest.mark.parametrize(
    ("log_prob", "words"),
    [
        (np.nan, "is nan"),
        (np.inf, "is inf"),
        (-np.inf, "finite: the choice was made"),
        (0.3, "a probability of 1.35"),
    ],
)
def test_propensities_that_cannot_be_are_refused(log_prob: float, words: str) -> None:
    values = np.full((2, 2), -1.0)
    values[1, 0] = log_prob
    with pytest.raises(ValueError, match=words):
        Logged(values, np.ones((2, 2)), np.ones((2, 2), bool), np.arange(2))


def test_arrays_that_do_not_fit_are_refused() -> None:
    one = np.ones((2, 2), bool)
    with pytest.raises(ValueError, match="allowed: \\[S, N\\] each"):
        Logged(np.zeros((2, 3)), np.ones((2, 2)), one, np.arange(2))
    with pytest.raises(ValueError, match="one for each of 2"):
        Logged(np.zeros((2, 2)), np.ones((2, 2)), one, np.arange(3))
    with pytest.raises(ValueError, match="shown has a gap"):
        Logged(np.zeros((2, 2)), np.ones((2, 2)), np.array([[False, True]] * 2), np.arange(2))
    with pytest.raises(ValueError, match="reward of slate 0 is not finite"):
        Logged(np.zeros((2, 2)), np.full((2, 2), np.nan), one, np.arange(2))
    with pytest.raises(ValueError, match="logged marginal of slate 0, position 1"):
        item_position_weights(np.full((2, 2), 0.5), np.array([[1, 0.0], [1, 1]]), one)
    log = Logged(np.zeros((2, 2)), np.ones((2, 2)), one, np.arange(2))
    weighing = Weighing("w", np.full((2, 2), np.inf))
    with pytest.raises(ValueError, match="weights of w must be finite"):
        compare_policies(log, "cascade", weighing, weighing)
    with pytest.raises(ValueError, match="must be finite"):
        doubly_robust(log, np.ones((2, 2)), np.ones((2, 2)), Prediction(one * np.nan, one, True))


@pytest.mark.parametrize(
    "changes",
    [
        {"clip": 0.5},
        {"level": 1.0},
        {"draws": 64},
        {"draws": -1},
        {"min_effective_sample_size": 0},
        {"max_clipped_share": 1.5},
        {"batch_size": 0},
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="allowed"):
        OffPolicySettings(**changes)  # type: ignore[arg-type]
