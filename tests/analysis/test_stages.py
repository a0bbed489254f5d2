"""Stages: what belongs to which, to the millisecond."""

from __future__ import annotations

import numpy as np

from deploy.analysis.stages import stage_at, stages_of, to_ms, weights_of
from deploy.analysis.status import Stage
from tests.analysis.tables import START, STARTED, experiment

HALF = {"control": 0.5, "new": 0.5}


def test_a_stage_begins_at_its_time_and_ends_before_the_next() -> None:
    stages = (
        Stage(since=1000, weights=HALF),
        Stage(since=5000, weights=HALF),
        Stage(since=5000, weights=HALF),  # the one before it is empty
    )
    times = np.array([999, 1000, 4999, 5000, 5099, 5100])
    stage, settling = stage_at(stages, times, 100)
    assert stage.tolist() == [-1, 0, 0, 2, 2, 2]
    # After the start nobody has to be moved.
    assert settling.tolist() == [False, False, False, True, True, False]


def test_without_a_history_todays_weights_hold_since_the_start() -> None:
    one = experiment()
    assert stages_of(one, None) == stages_of(one, ()) == (Stage(since=START, weights=HALF),)
    assert stages_of(experiment(state="draft", started=None), None) == ()
    assert weights_of(stages_of(one, None), ("new", "control")).tolist() == [[0.5, 0.5]]


def test_times_with_their_zone() -> None:
    assert to_ms(STARTED) == to_ms("2026-03-02T00:00:00Z") == to_ms("2026-03-02T03:00:00+03:00")
    assert to_ms("2026-03-02T00:00:00.5+00:00") == START + 500
