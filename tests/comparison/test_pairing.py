"""Differences over users and seeds, against what must come out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.comparison.stored import WORTH, case_lists, fill, lists, row
from training.comparison.pairing import draw
from training.comparison.store import Store


def test_estimates_are_means_over_seeds(tmp_path: Path) -> None:
    store = fill(tmp_path)
    drawn = draw(store, [row("prm", 1), row("prm", 2)], "true click")
    level = lists(0.0)["true click"].mean()
    assert drawn.estimate == pytest.approx(level + np.mean(WORTH["prm"]), abs=1e-6)


def test_pairing_takes_the_users_out_and_leaves_the_seeds_in(tmp_path: Path) -> None:
    """Methods that differ by a constant on every list: no user can blur the difference."""
    store = fill(tmp_path)
    gref = draw(store, [row("gref", 1), row("gref", 2)], "true click")
    prm = draw(store, [row("prm", 1), row("prm", 2)], "true click")
    over, p = gref.minus(prm)
    assert over.estimate == pytest.approx(0.2, abs=1e-6)
    # Both seeds of GReF drawn alike are 0.3 or 0.4, of PRM 0.1 or 0.2: that is all there is.
    assert over.low == pytest.approx(0.1, abs=1e-6)
    assert over.high == pytest.approx(0.3, abs=1e-6)
    assert p == pytest.approx(2 / 1001)
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
    assert called / times < 0.12  # 20 users: percentile intervals are a little narrow


def test_auc_is_computed_from_places(tmp_path: Path) -> None:
    store = fill(tmp_path)
    # The one item with feedback is first everywhere: it beats every other.
    assert draw(store, [row("given", 1)], "auc").estimate == 1.0


def test_rows_of_two_methods_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one method"):
        draw(fill(tmp_path), [row("prm", 1), row("gref", 1)], "true click")
