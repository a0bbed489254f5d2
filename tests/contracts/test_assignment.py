"""Assignment: exact weights, ramps that move nobody else, layers that are independent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from contracts.assignment import (
    BUCKETS,
    Route,
    Router,
    arms_of,
    assign,
    assign_many,
    bucket,
    route,
    seed_of,
    temperature_of,
)
from contracts.experiments import GRAINS, Arm, Experiment, Exploration
from contracts.routing import Routing, compile_routing
from tests.contracts.made_experiments import (
    experiment,
    experiments,
    explorations,
    regions,
    weighted,
)

MILLION = [f"user-{number}" for number in range(1_000_000)]
#: Fixed inputs, so these tests cannot fail by chance; the bound says that the deal looks random.
P = 1e-3
HALF = Exploration(share=0.5, temperature=0.7)


def chi_square_p(found: np.ndarray, shares: np.ndarray) -> float:
    """p of counts under their multinomial; a share of nothing must have nobody."""
    assert (found[shares == 0] == 0).all()
    kept = shares > 0
    if kept.sum() == 1:  # everybody, which the line above has said
        return 1.0
    return float(stats.chisquare(found[kept], shares[kept] * found.sum()).pvalue)


@pytest.mark.parametrize(
    ("grains", "ceilings"),
    [
        ([5_000], None),
        ([1], None),
        ([100], [10_000]),
        ([3_333, 3_333], None),
        ([1_000, 0, 2_500], [2_000, 1_000, 7_000]),
        ([10_000], None),
        ([123, 456, 789, 1_011], None),
    ],
)
def test_weights_are_exact_on_a_million_units(
    grains: list[int], ceilings: list[int | None] | None
) -> None:
    made = weighted(grains, ceilings)
    shares = np.array([arm.weight_grains for arm in made.arms]) / GRAINS
    found = np.bincount(assign_many(made, MILLION), minlength=len(shares))
    assert chi_square_p(found, shares) > P


def test_weights_are_exact_by_bucket() -> None:
    """Not statistics: of the million buckets each arm has exactly its weight."""
    made = weighted([1_000, 2_345], [5_000, 3_000])
    dealt = np.zeros(BUCKETS, np.int64)
    dealt[:100_000] = 1
    dealt[500_000:734_500] = 2
    found = assign_many(made, MILLION[:20_000])
    where = [bucket(made.salt, unit) for unit in MILLION[:20_000]]
    assert (found == dealt[where]).all()
    assert np.bincount(dealt).tolist() == [1_000_000 - 100_000 - 234_500, 100_000, 234_500]


def test_buckets_are_uniform() -> None:
    found = np.bincount(
        [bucket("any", unit) // 1_000 for unit in MILLION[:200_000]], minlength=1_000
    )
    assert chi_square_p(found, np.full(1_000, 1e-3)) > P


@given(experiments(), st.lists(st.text(), max_size=40))
def test_many_is_each(made: Experiment, units: list[str]) -> None:
    assert assign_many(made, units).tolist() == [assign(made, unit) for unit in units]


def test_many_takes_any_iterable_and_none() -> None:
    made = weighted([5_000])
    assert assign_many(made, iter(MILLION[:5])).tolist() == assign_many(made, MILLION[:5]).tolist()
    assert assign_many(made, []).shape == (0,)
    assert (
        assign_many(made, np.array(MILLION[:5])).tolist() == assign_many(made, MILLION[:5]).tolist()
    )


@settings(max_examples=60)
@given(st.data(), regions(), st.text(min_size=1, max_size=8))
def test_a_ramp_moves_units_between_the_control_and_that_arm_alone(
    data: st.DataObject, limits: list[int], prefix: str
) -> None:
    """Up: from the control to the arm. Down: back. Whoever is elsewhere stays, whatever ramps."""
    units = [f"{prefix}{number}" for number in range(300)]
    weights = [data.draw(st.integers(0, limit)) for limit in limits]
    before = assign_many(weighted(weights, limits), units)
    for _ in range(3):
        arm = data.draw(st.integers(0, len(limits) - 1))
        was, weights[arm] = weights[arm], data.draw(st.integers(0, limits[arm]))
        after = assign_many(weighted(weights, limits), units)
        moved = before != after
        ends = (0, arm + 1) if weights[arm] >= was else (arm + 1, 0)
        assert (before[moved] == ends[0]).all()
        assert (after[moved] == ends[1]).all()
        before = after


def test_no_history_is_needed() -> None:
    """Ramped up, down and up again, the same units are in the arm: the path does not matter."""
    first = assign_many(weighted([1_000], [5_000]), MILLION[:10_000])
    up = assign_many(weighted([4_000], [5_000]), MILLION[:10_000])
    assert (assign_many(weighted([1_000], [5_000]), MILLION[:10_000]) == first).all()
    assert (up[first == 1] == 1).all()


@pytest.mark.parametrize("other", ["salt-two", "salt-one-", "Salt-one", "1", "salt-on"])
def test_salts_are_independent(other: str) -> None:
    """Chi-square of the contingency of two deals of the same units."""
    one = assign_many(weighted([2_000, 3_000], salt="salt-one"), MILLION[:200_000])
    two = assign_many(weighted([5_000], salt=other), MILLION[:200_000])
    counts = np.zeros((3, 2))
    np.add.at(counts, (one, two), 1)
    assert stats.chi2_contingency(counts).pvalue > P


def test_exploration_is_independent_of_the_arm() -> None:
    """Even where the unit is the request, whose id both are made of."""
    arms = assign_many(weighted([5_000], unit="request"), MILLION[:200_000])
    warm = [temperature_of(HALF, unit) > 0 for unit in MILLION[:200_000]]
    counts = np.zeros((2, 2))
    np.add.at(counts, (arms, np.array(warm, np.int64)), 1)
    assert stats.chi2_contingency(counts).pvalue > P


@pytest.mark.parametrize("share", [0.0, 0.001, 0.05, 0.5, 1.0])
def test_the_share_of_exploration_is_exact(share: float) -> None:
    exploration = Exploration(share=share, temperature=0.7)
    heats = [temperature_of(exploration, unit) for unit in MILLION[:100_000]]
    warm = sum(heat == 0.7 for heat in heats)
    assert warm + heats.count(0.0) == 100_000
    assert stats.binomtest(warm, 100_000, share).pvalue > P


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_explores_what_a_smaller_one_does(
    text: str, one: float, other: float
) -> None:
    small, large = (Exploration(share=share) for share in sorted((one, other)))
    assert temperature_of(small, text) <= temperature_of(large, text)


@given(st.text())
def test_seeds_fit_into_64_bits_and_differ(text: str) -> None:
    assert -(2**63) <= seed_of(text) < 2**63
    assert seed_of(text) != seed_of(text + "x")


def test_a_lone_surrogate_is_assigned_all_the_same() -> None:
    """A broken id must not bring a request down; whoever sends the event will refuse it."""
    assert 0 <= bucket("s", "\ud800") < BUCKETS
    assert assign_many(weighted([5_000]), ["\ud800"])[0] == assign(weighted([5_000]), "\ud800")


LAYERED = compile_routing(
    "r0001",
    [
        experiment("release", layer="a", surfaces=("home", "feed")),
        experiment(
            "warmth",
            layer="b",
            arms=(
                Arm(name="control", release="champion", weight=0.5),
                Arm(name="hot", release="champion", weight=0.5, exploration=HALF),
            ),
        ),
    ],
    Exploration(share=0.1, temperature=0.3),
)


@given(st.text(min_size=1), st.text(min_size=1), st.sampled_from(["home", "feed", "search", ""]))
def test_a_route_is_what_its_layers_say(user: str, request_id: str, surface: str) -> None:
    found = route(LAYERED, surface, user, request_id)
    by_name = {one.name: one.arms[assign(one, user)] for one in LAYERED.experiments}
    if surface in ("search", ""):
        del by_name["release"]
    assert arms_of(found.arm) == {name: arm.name for name, arm in by_name.items()}
    treated = "release" in by_name and by_name["release"].name == "treatment"
    assert found.release == ("r0002" if treated else "r0001")
    own = by_name["warmth"].exploration or LAYERED.exploration
    assert found.temperature == temperature_of(own, request_id)
    assert found.seed == (seed_of(request_id) if found.temperature else 0)


def test_labels_are_joined_in_the_order_of_names() -> None:
    labels = {route(LAYERED, "home", f"u{n}", "r").arm for n in range(100)}
    assert labels == {
        f"release/{one},warmth/{other}"
        for one in ("control", "treatment")
        for other in ("control", "hot")
    }


def test_outside_of_experiments_it_is_the_champion() -> None:
    bare = Routing(champion="r0009")
    assert route(bare, "home", "u", "r") == Route("r0009", "", 0.0, 0)


def test_nobody_is_in_no_experiment() -> None:
    """All requests without a user would be one unit, and the arm that got it would be skewed."""
    assert route(LAYERED, "home", "", "r").arm == ""
    by_request = compile_routing("r0001", [experiment(unit="request")])
    assert route(by_request, "home", "", "r").arm != ""
    assert route(by_request, "home", "u", "").arm == ""


def test_by_request_each_request_is_dealt() -> None:
    router = Router(compile_routing("r0001", [experiment(unit="request")]))
    assert len({router.route("", "u", f"r{n}").arm for n in range(50)}) == 2
    router = Router(compile_routing("r0001", [experiment(unit="user")]))
    assert len({router.route("", "u", f"r{n}").arm for n in range(50)}) == 1


@given(explorations(), explorations(), st.text(min_size=1))
def test_an_arm_without_exploration_explores_as_all_traffic(
    everybody: Exploration | None, own: Exploration | None, request_id: str
) -> None:
    arms = (
        Arm(name="c", release="champion", weight=0.0),
        Arm(name="t", release="r0002", weight=1.0, exploration=own),
    )
    made = compile_routing("r0001", [experiment(arms=arms)], everybody)
    expected = temperature_of(own if own is not None else everybody, request_id)
    assert route(made, "", "u", request_id).temperature == expected


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("", {}),
        ("a/b", {"a": "b"}),
        ("a/b,c/d", {"a": "b", "c": "d"}),
        ("treatment", {}),
        ("a/,/b,", {}),
    ],
)
def test_labels_are_read_back(label: str, expected: dict[str, str]) -> None:
    assert arms_of(label) == expected
