"""What the statistics promise, counted over simulated experiments looked at every hour."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from benchmarks.aa_repeats import run, upper_bound
from benchmarks.aa_world import Population, simulate
from deploy.analysis.fixed import p_value
from deploy.analysis.power import fixed_power, last_look_power
from deploy.analysis.ratio import TwoArms, compare
from deploy.analysis.sequences import MIN_UNITS, half_width

ALPHA = 0.05


def within_binomial(count: int, repeats: int, chance: float) -> bool:
    """Whether a count is what chance makes of it, but for one case in a thousand."""
    low, high = stats.binom.ppf([0.0005, 0.9995], repeats, chance)
    return bool(low <= count <= high)


def test_no_effect_looked_at_every_hour_for_four_days() -> None:
    population = simulate(users=1000, lists=10_000, days=4)
    found = run(population, 200, alpha=ALPHA, mde=0.05)
    alarms = int(found.alarms_by_sequence()[:, -1].sum())
    assert alarms <= upper_bound(200, ALPHA)
    # A fixed-horizon test is right at one look, and far from it at all of them: the looks are real.
    assert within_binomial(int((found.p[:, -1] < ALPHA).sum()), 200, ALPHA)
    assert found.alarms_by_peeking(ALPHA)[:, -1].sum() > 2 * upper_bound(200, ALPHA)
    assert (found.ratio_p < 0.001).sum() <= 3
    assert found.deviation[:, -1].mean() == pytest.approx(found.estimate[:, -1].std(), rel=0.2)


def test_a_known_effect_is_found_as_often_as_computed() -> None:
    population = simulate(users=1200, lists=9000, days=1, past_days=2, better_share=0.12, seed=1)
    truth = population.true_lift
    assert 0.03 < truth[-1] < 0.08
    reduced = []
    for use_past in (False, True):
        found = run(population, 150, alpha=ALPHA, mde=0.05, use_past=use_past, salt=f"b{use_past}")
        variance = float(np.mean(found.deviation[:, -1] ** 2))
        reduced.append(variance)
        power = fixed_power(float(truth[-1]), variance, ALPHA)
        assert 0.4 < power < 0.97  # neither is surely found nor surely missed
        assert within_binomial(int((found.p[:, -1] < ALPHA).sum()), 150, power)
        shown = np.abs(found.estimate[:, -1]) > found.half[:, -1]
        power = last_look_power(float(truth[-1]), variance, 0.05, ALPHA)
        assert within_binomial(int(shown.sum()), 150, power)
        # The truth is inside of the sequence at all looks, and of the fixed interval at one.
        assert found.alarms_by_sequence(truth)[:, -1].sum() <= upper_bound(150, ALPHA)
        outside = np.abs(found.estimate[:, -1] - truth[-1]) > 1.96 * found.deviation[:, -1]
        assert within_binomial(int(outside.sum()), 150, ALPHA)
    assert reduced[1] < 0.9 * reduced[0]


def _population(draw: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]) -> Population:
    lists, earned = draw(np.random.default_rng(0))
    users = len(lists)
    so_far = earned.cumsum(axis=1)
    return Population(
        names=tuple(f"x{number}" for number in range(users)),
        lists=lists.cumsum(axis=1).astype(float),
        earned=np.stack([so_far, so_far]),
        past_lists=np.zeros(users),
        past=np.zeros(users),
    )


def _persistent(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    lists = rng.poisson(0.3, (1500, 40))
    return lists, rng.binomial(lists, rng.beta(1, 4, 1500)[:, None])


def _each_once(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    lists = np.zeros((2000, 40))
    lists[np.arange(2000), np.sort(rng.integers(0, 40, 2000))] = 1
    return lists, lists * (rng.random(2000) < 0.2)[:, None]


def _fickle(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    # What a user likes beyond the mean at first, he likes as much less the second time.
    lists, earned = np.zeros((1500, 40)), np.zeros((1500, 40))
    first, taste = rng.integers(0, 20, 1500), rng.normal(size=1500)
    for when, sign in ((first, 1), (first + 20, -0.9)):
        lists[np.arange(1500), when] = 1
        earned[np.arange(1500), when] = 5 + sign * taste
    return lists, earned


def _heavy(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    lists = rng.poisson(0.2, (1500, 40))
    return lists, lists * rng.lognormal(0, 1.5, (1500, 1)) * rng.lognormal(0, 1, (1500, 40))


def _rare(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    lists = rng.poisson(0.5, (1500, 40))
    return lists, rng.binomial(lists, 0.01)


@pytest.mark.parametrize("draw", [_persistent, _each_once, _fickle, _heavy, _rare])
def test_however_the_units_totals_grow(
    draw: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]],
) -> None:
    # A large mde makes the sequence narrow early, where the normal limit is farthest.
    found = run(_population(draw), 100, alpha=ALPHA, mde=0.3, salt=draw.__name__)
    assert found.alarms_by_sequence()[:, -1].sum() <= upper_bound(100, ALPHA)


@pytest.mark.parametrize("first_weight", [0.05, 0.3])
def test_a_ramp_in_the_middle_is_no_alarm(first_weight: float) -> None:
    # Users with lasting tastes; those whom the ramp moves count for the control, then for the arm.
    rng = np.random.default_rng(3)
    lists, earned = _persistent(rng)
    users, looks, ramp, repeats = len(lists), lists.shape[1], 16, 120
    parts = [slice(0, ramp), slice(ramp, looks)]
    sizes = [lists[:, part].cumsum(axis=1) for part in parts]
    sums = [earned[:, part].cumsum(axis=1) for part in parts]
    alarms = peeked = 0
    for _ in range(repeats):
        bucket = rng.random(users)
        treated = [bucket < first_weight, bucket < 0.5]
        alarm = peek = False
        for look in range(looks):
            ends = [min(look, ramp - 1)] + ([look - ramp] if look >= ramp else [])
            rows = [np.flatnonzero(sizes[stage][:, end] > 0) for stage, end in enumerate(ends)]
            arms = TwoArms(
                np.concatenate(rows),
                np.repeat(np.arange(len(rows)), [len(one) for one in rows]),
                np.concatenate([treated[stage][one] for stage, one in enumerate(rows)]),
            )
            found = compare(
                arms,
                np.concatenate([sums[stage][one, ends[stage]] for stage, one in enumerate(rows)]),
                np.concatenate([sizes[stage][one, ends[stage]] for stage, one in enumerate(rows)]),
            )
            if found is None or found[1] is None or min(found[1].units) < MIN_UNITS:
                continue
            alarm |= abs(found[1].value) > half_width(found[1].variance, 0.1, ALPHA)
            peek |= p_value(found[1]) < ALPHA
        alarms += alarm
        peeked += peek
    assert alarms <= upper_bound(repeats, ALPHA)
    assert peeked > alarms
