"""Simulated users: repeatable, honest to their world, and untrue only where asked to be."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from contracts.events import Exposure, FeedbackEvent
from streaming.traffic.poison import Poison
from streaming.traffic.users import CHUNK, Users, Visit
from tests.sources.test_world import TINY
from training.sources.world import KINDS, World

START = 1_750_000_000_000


def shown(visit: Visit, order: tuple[int, ...] = (3, 1, 0, 2, 4, 5)) -> Exposure:
    """The visit's exposure, as a client would send it."""
    return Exposure(
        request_id=visit.request.request_id,
        user=visit.request.user,
        time=START + visit.index,
        candidates=visit.request.candidates,
        exposed=order,
        user_features=visit.request.user_features,
    )


def clicks(users: Users, visits: list[Visit]) -> np.ndarray:
    """Clicks [visits, positions] that the users report."""
    found = np.zeros((len(visits), 6))
    for row, visit in enumerate(visits):
        exposure = shown(visit)
        place = {exposure.candidates[i].item: at for at, i in enumerate(exposure.exposed)}
        for event in users.act(visit, exposure):
            if event.kind == "click":
                found[row, place[event.item]] = event.value
    return found


def test_acts_agree_with_the_truth_of_the_visit() -> None:
    users = Users(World(TINY), seed=3)
    visits = list(users.visits(3000))
    reported = clicks(users, visits).sum(axis=1)
    truth = np.array([visit.true_clicks((3, 1, 0, 2, 4, 5)) for visit in visits])
    error = (reported - truth).std() / len(visits) ** 0.5
    assert abs(reported.mean() - truth.mean()) < 4 * error
    assert np.corrcoef(reported, truth)[0, 1] > 0.1, "visit by visit, not only on average"


def test_the_same_traffic_again_and_other_traffic_with_another_seed() -> None:
    def everything(seed: int) -> list[tuple[Visit, list[FeedbackEvent]]]:
        users = Users(World(TINY), seed=seed)
        return [(visit, users.act(visit, shown(visit))) for visit in users.visits(CHUNK + 9)]

    first, again, other = everything(1), everything(1), everything(2)
    assert [v.request for v, _ in first] == [v.request for v, _ in again]
    assert [acts for _, acts in first] == [acts for _, acts in again]
    assert [v.request.user for v, _ in first] != [v.request.user for v, _ in other]
    ids = [v.request.request_id for v, _ in [*first, *other]]
    assert len(set(ids)) == len(ids)


def test_events_are_those_of_the_contract() -> None:
    users = Users(World(TINY), seed=1)
    seen, ids = set(), []
    for visit in users.visits(200):
        exposure = shown(visit)
        on_screen = {exposure.candidates[i].item for i in exposure.exposed}
        events = users.act(visit, exposure)
        assert [event.time for event in events] == sorted(event.time for event in events)
        for event in events:
            assert event.item in on_screen
            assert event.time > exposure.time
            assert msgspec.json.decode(msgspec.json.encode(event), type=FeedbackEvent) == event
            seen.add(event.kind)
            ids.append(event.event_id)
    assert seen == set(KINDS)
    assert len(set(ids)) == len(ids)


def test_tastes_move_from_the_first_request_to_the_last() -> None:
    users = Users(World(TINY), seed=1, drift=(0.2, 0.9))
    drifts = [visit.world.settings.drift for visit in users.visits(1000)]
    assert drifts == sorted(drifts)
    assert 0.2 < drifts[0] < 0.3
    assert 0.8 < drifts[-1] < 0.9
    still = {v.world.settings.drift for v in Users(World(TINY).at(0.4)).visits(10)}
    assert still == {0.4}


@pytest.mark.parametrize("poison", Poison)
def test_poison_is_untrue_and_nothing_else(poison: Poison) -> None:
    honest, liar = Users(World(TINY), seed=5), Users(World(TINY), seed=5, poison=poison)
    visits = list(honest.visits(1500))
    true, false = clicks(honest, visits), clicks(liar, visits)
    truth = np.array(
        [v.world.expected("click", np.array([v.user]), v.candidates[[3, 1, 0, 2, 4, 5]][None])[0]
         for v in visits]
    )  # fmt: skip

    def told(reported: np.ndarray) -> float:
        """How much the clicks at one position say about the items there: mean correlation."""
        return float(np.mean([np.corrcoef(reported[:, k], truth[:, k])[0, 1] for k in range(6)]))

    assert told(true) > 0.1
    if poison is Poison.inverted:
        np.testing.assert_array_equal(false, 1 - true)
    elif poison is Poison.shuffled:
        np.testing.assert_array_equal(false.sum(axis=1), true.sum(axis=1))
        assert told(false) < told(true) / 2
    else:
        assert abs(told(false)) < 0.06
    assert [v.request for v in liar.visits(1500)] == [v.request for v in visits]
