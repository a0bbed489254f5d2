"""Differences over users and seeds, against what must come out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from contracts.reading import ContractError
from tests.comparison.stored import WORTH, case_lists, fill, lists, row
from training.comparison.pairing import Drawn, draw
from training.comparison.store import Store


def test_estimates_are_means_over_seeds(tmp_path: Path) -> None:
    store = fill(tmp_path)
    drawn = draw(store, [row("prm", 1), row("prm", 2)], "true click")
    level = lists(0.0)["true click"].mean()
    assert drawn.estimate == pytest.approx(level + np.mean(WORTH["prm"]), abs=1e-6)


def test_a_row_whose_lists_are_without_the_metric_is_named(tmp_path: Path) -> None:
    store = fill(tmp_path)
    with pytest.raises(ContractError, match="tiny prm, seed 1, are without 'ndcg@10'"):
        draw(store, [row("prm", 1)], "ndcg@10")


def test_pairing_takes_the_users_out_and_leaves_the_seeds_in(tmp_path: Path) -> None:
    """Methods that differ by a constant on every list: no user can blur the difference."""
    store = fill(tmp_path)
    gref = draw(store, [row("gref", 1), row("gref", 2)], "true click")
    prm = draw(store, [row("prm", 1), row("prm", 2)], "true click")
    over, p = gref.minus(prm)
    assert over.estimate == pytest.approx(0.2, abs=1e-6)
    # Welch's t of (0.3, 0.4) against (0.1, 0.2): that is all there is.
    wanted = stats.ttest_ind([0.3, 0.4], [0.1, 0.2], equal_var=False)
    assert p == pytest.approx(wanted.pvalue, rel=1e-4)
    between = wanted.confidence_interval(0.95)
    assert (over.low, over.high) == pytest.approx((between.low, between.high), abs=1e-5)
    assert gref.interval().high - gref.interval().low > 0.5  # unpaired, users do blur
    one_seed, _ = draw(store, [row("gref", 1)], "true click").minus(
        draw(store, [row("prm", 1)], "true click")
    )
    assert one_seed.high - one_seed.low == pytest.approx(0, abs=1e-6)


def test_equal_methods_have_p_one(tmp_path: Path) -> None:
    store = fill(tmp_path)
    one = draw(store, [row("given", 1)], "true click")
    assert one.minus(one)[1] == 1.0


def test_noise_that_users_carry_is_not_called_a_difference(tmp_path: Path) -> None:
    """Under no difference, p below 0.05 comes about one time in twenty."""
    rng = np.random.default_rng(0)
    called, times = 0, 100
    for number in range(times):
        store = Store(tmp_path / str(number))
        drawn = []
        for method in ("given", "prm"):
            own = lists(0.0)
            per_user = rng.normal(size=20)[case_lists()["users"]]
            own["true click"] = per_user.astype(np.float32)
            store.add(row(method, 1), own, case_lists())
            drawn.append(draw(store, [row(method, 1)], "true click", resamples=200))
        called += drawn[0].minus(drawn[1])[1] < 0.05
    assert 0 < called / times < 0.12  # 20 users are few: a little too often


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_noise_of_training_seeds_is_not_called_a_difference(seeds: int) -> None:
    """Nor does a method whose seeds differ much hide behind one whose seeds do not."""
    rng = np.random.default_rng(seeds)
    called, times = 0, 2000
    for _ in range(times):
        users = 0.01 * rng.normal(size=200)
        one, other = (Drawn(1 + spread * rng.normal(size=seeds), users) for spread in (0.02, 0.01))
        called += one.minus(other)[1] < 0.05
        low_high = one.minus(other)[0]
        assert low_high.excludes_zero == (one.minus(other)[1] < 0.05)
    assert 0.02 < called / times < 0.07


def test_an_arm_trained_once_is_not_called_better_for_its_seed() -> None:
    """Of two variants one was trained once: its seeds are taken to vary as the other's do."""
    rng = np.random.default_rng(1)
    called, alone, times = 0, 0, 2000
    for _ in range(times):
        users = 0.01 * rng.normal(size=200)
        once, thrice = (Drawn(1 + 0.02 * rng.normal(size=size), users) for size in (1, 3))
        called += once.minus(thrice, alike=True)[1] < 0.05
        alone += once.minus(thrice)[1] < 0.05
    assert 0.02 < called / times < 0.07
    assert alone / times > 0.1, "the mean's own spread says too little"


def test_auc_is_computed_from_places(tmp_path: Path) -> None:
    store = fill(tmp_path)
    # The one item with feedback is first everywhere: it beats every other.
    assert draw(store, [row("given", 1)], "auc").estimate == 1.0


def test_rows_of_two_methods_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one method"):
        draw(fill(tmp_path), [row("prm", 1), row("gref", 1)], "true click")
