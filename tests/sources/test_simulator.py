"""Simulated slates: what a slate holds must be enough to compute the truth and the propensities."""

from __future__ import annotations

import itertools

import msgspec
import numpy as np
import pytest

from contracts.encoding import FeatureEncoder
from contracts.slates import RerankRequest, Slate
from tests.sources.test_world import TINY
from training.sources.base import Tally
from training.sources.simulator import Simulator, SimulatorSettings
from training.sources.world import World


def draw(lists: int, seed: int = 1) -> tuple[Simulator, list[Slate]]:
    source = Simulator(SimulatorSettings(world=TINY, lists=lists, seed=seed))
    return source, list(source.slates(Tally()))


def test_slates_carry_the_given_order_and_exact_propensities() -> None:
    _, slates = draw(200)
    for slate in slates:
        scores = np.array([candidate.score for candidate in slate.candidates])
        assert (np.diff(scores) <= 0).all()
        assert len(slate.candidates) == TINY.candidates
        assert len(slate.exposed) == TINY.list_size
        keys, left = scores / slate.temperature, set(range(len(scores)))
        assert slate.log_prob is not None
        for index, log_prob in zip(slate.exposed, slate.log_prob):
            normaliser = np.log(np.exp(keys[sorted(left)]).sum())
            assert log_prob == pytest.approx(keys[index] - normaliser)
            left.remove(index)


def test_exposure_differs_from_the_given_order() -> None:
    _, slates = draw(200)
    given = sum(slate.exposed == tuple(range(TINY.list_size)) for slate in slates)
    assert given < 100


def test_truth_from_ids_alone_matches_the_feedback() -> None:
    _, slates = draw(4000)
    world = World(TINY)  # another object: the settings are all that is needed
    expected = world.expected_of("click", slates, [np.array(s.exposed) for s in slates])
    clicks = np.array([sum(f.kind == "click" for f in slate.feedback) for slate in slates])
    error = clicks.std() / np.sqrt(len(clicks))
    assert abs(clicks.mean() - expected.mean()) < 4 * error
    # ... and list by list, not only on average.
    assert np.corrcoef(clicks, expected)[0, 1] > 0.15


def test_truth_of_short_lists() -> None:
    source, slates = draw(3)
    whole = [np.array(s.exposed) for s in slates]
    ended = [np.r_[row[:2], -1, -1] for row in whole]
    short = [row[:2] for row in whole]
    np.testing.assert_allclose(
        source.world.expected_of("click", slates, ended),
        source.world.expected_of("click", slates, short),
    )


def test_same_settings_same_slates_and_another_seed_another_day() -> None:
    (_, first), (_, again), (_, other) = draw(600), draw(600), draw(600, seed=2)
    assert first == again
    assert [slate.candidates for slate in first] != [slate.candidates for slate in other]
    assert {slate.request_id for slate in first}.isdisjoint(slate.request_id for slate in other)


def test_time_runs_and_splits_follow_it() -> None:
    source, slates = draw(1000)
    times = [slate.time for slate in slates]
    assert all(a < b for a, b in itertools.pairwise(times))
    splits = [source.split_times.of(time) for time in times]
    assert splits == sorted(splits, key=("train", "valid", "test").index)
    assert splits.count("valid") == splits.count("test") == 100


def test_features_are_accepted_by_the_encoder() -> None:
    source, slates = draw(64)
    spec = source.spec
    requests = [
        RerankRequest(
            request_id=slate.request_id,
            user=slate.user,
            candidates=slate.candidates,
            user_features=slate.user_features,
        )
        for slate in slates
    ]
    batch = FeatureEncoder(spec).encode(requests)
    assert not batch.item_dense[:, : TINY.candidates, 1::2].any()  # nothing is missing
    names = {f.name for f in (*spec.item.categorical, *spec.item.dense)} - {"item", "score"}
    assert all(candidate.features.keys() == names for candidate in slates[0].candidates)


@pytest.mark.parametrize("changes", [{"lists": 0}, {"valid_part": 0.6, "test_part": 0.4}])
def test_impossible_settings_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"allowed|leave room"):
        msgspec.structs.replace(SimulatorSettings(world=TINY), **changes)
