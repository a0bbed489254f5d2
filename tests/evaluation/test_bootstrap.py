"""The bootstrap against a slow loop, scikit-learn, and what an interval promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from training.evaluation import bootstrap
from training.evaluation.bootstrap import (
    Interval,
    bootstrap_auc,
    bootstrap_means,
    interval,
    pooled_auc,
    user_draws,
)

RNG = np.random.default_rng(0)
LISTS, USERS, SHOWN = 60, 12, 5
#: Labels are strings, unevenly many lists each, in no order.
WHO = np.array([f"u{int(u)}" for u in RNG.integers(0, USERS, LISTS)], object)
VALUES = RNG.random((LISTS, 2))
WEIGHTS = RNG.integers(1, 9, (LISTS, 2)).astype(float)
VALUES[::7, 1] = np.nan
SCORE = RNG.integers(0, 6, (LISTS, SHOWN)).astype(float)
LABEL = RNG.random((LISTS, SHOWN)) < 0.3 + 0.05 * SCORE
VALID = RNG.random((LISTS, SHOWN)) < 0.9


def resampled(seed: int, resamples: int) -> list[np.ndarray]:
    """List indices of each resample, by walking over the drawn users one at a time."""
    distinct = sorted(set(WHO))
    found = []
    for counts in np.concatenate(list(user_draws(len(distinct), resamples, seed))):
        rows: list[int] = []
        for user, times in zip(distinct, counts):
            rows += [i for i in range(LISTS) if WHO[i] == user] * int(times)
        found.append(np.array(rows))
    return found


def test_draws_are_draws_with_replacement() -> None:
    draws = np.concatenate(list(user_draws(40, 500, seed=1)))
    assert draws.shape == (500, 40)
    assert (draws.sum(axis=1) == 40).all()
    observed = np.bincount(draws.astype(int).ravel(), minlength=4)[:4]
    expected = stats.binom.pmf(range(4), 40, 1 / 40) * draws.size
    assert stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-4


def test_draws_do_not_depend_on_how_they_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(user_draws(30, 50, seed=2)))
    monkeypatch.setattr(bootstrap, "_PIECE", 100)
    pieces = list(user_draws(30, 50, seed=2))
    assert len(pieces) > 10
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    assert not np.array_equal(np.concatenate(list(user_draws(30, 50, seed=3))), whole)


@pytest.mark.parametrize("weighted", [False, True])
def test_means_equal_a_slow_loop(weighted: bool) -> None:
    weights = WEIGHTS if weighted else np.ones_like(VALUES)
    means, draws = bootstrap_means(VALUES, WHO, weights if weighted else None, 50, seed=4)
    for series in range(2):
        known = ~np.isnan(VALUES[:, series])
        expected = np.average(VALUES[known, series], weights=weights[known, series])
        assert means[series] == pytest.approx(expected)
        for draw, rows in zip(draws[:, series], resampled(4, 50)):
            rows = rows[known[rows]]
            expected = np.average(VALUES[rows, series], weights=weights[rows, series])
            assert draw == pytest.approx(expected)


def test_pooled_auc_is_scikit_learns() -> None:
    assert pooled_auc(SCORE, LABEL, VALID) == pytest.approx(
        roc_auc_score(LABEL[VALID], SCORE[VALID])
    )
    continuous = RNG.random(SCORE.shape)
    assert pooled_auc(continuous, LABEL, VALID) == pytest.approx(
        roc_auc_score(LABEL[VALID], continuous[VALID])
    )
    assert math.isnan(pooled_auc(SCORE, np.zeros_like(LABEL), VALID))


@pytest.mark.parametrize("piece", [50, 4_000_000])
def test_auc_draws_are_recomputed_on_the_resample(
    monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(bootstrap, "_PIECE", piece)
    auc, draws = bootstrap_auc(SCORE, LABEL, VALID, WHO, 30, seed=5)
    assert auc == pooled_auc(SCORE, LABEL, VALID)
    for draw, rows in zip(draws, resampled(5, 30), strict=True):
        valid = VALID[rows]
        assert draw == pytest.approx(roc_auc_score(LABEL[rows][valid], SCORE[rows][valid]))


def test_padding_is_never_looked_at() -> None:
    score = np.where(VALID, SCORE, np.nan)
    assert pooled_auc(score, LABEL, VALID) == pooled_auc(SCORE, LABEL, VALID)
    with pytest.raises(ValueError, match="score of a valid item is NaN"):
        pooled_auc(np.full_like(SCORE, np.nan), LABEL, VALID)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """300 worlds of 80 users, whose lists go together: 95 % intervals hold the truth in 95 %.

    An interval that took lists for independent would be far too narrow here, which the last
    assertion shows: the test can tell the two apart.
    """
    rng = np.random.default_rng(6)
    users, per_user, worlds = 80, 6, 300
    who = np.repeat(np.arange(users), per_user)
    by_user = by_list = 0
    for seed in range(worlds):
        effect = np.repeat(rng.normal(0.2, 1.0, users), per_user)
        values = (effect + rng.normal(0, 0.5, users * per_user))[:, None]
        for lists, name in ((who, "user"), (np.arange(len(who)), "list")):
            means, draws = bootstrap_means(values, lists, resamples=200, seed=seed)
            found = interval(means[0], draws[:, 0])
            covers = found.low <= 0.2 <= found.high
            by_user += covers and name == "user"
            by_list += covers and name == "list"
    low, high = stats.binom.ppf((0.0005, 0.9995), worlds, 0.94) / worlds
    assert low <= by_user / worlds <= high
    assert by_list / worlds < 0.75


def test_interval() -> None:
    draws = np.append(np.arange(101, dtype=float), np.nan)
    found = interval(50, draws, 0.9)
    assert (found.estimate, found.low, found.high) == pytest.approx((50, 5, 95))
    assert Interval(estimate=1, low=0.5, high=2).excludes_zero
    assert Interval(estimate=-1, low=-2, high=-0.5).excludes_zero
    assert not Interval(estimate=1, low=-0.5, high=2).excludes_zero


def test_refusals() -> None:
    with pytest.raises(ValueError, match="needs two users or more; found 1"):
        bootstrap_means(VALUES, np.zeros(LISTS))
    with pytest.raises(ValueError, match="allowed: one for each of 60 lists"):
        bootstrap_means(VALUES, WHO[1:])
