"""By what trials are chosen: the held-out logs, and neither the truth nor the test lists."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from training.comparison.cases import CASES, slates_of
from training.comparison.judging import held_out_score, lists_of
from training.comparison.running import slates_in
from training.comparison.system import Slates
from training.comparison.systems import systems
from training.data.arrays import SlateArrays
from training.evaluation.metrics import given_order

SMALL = msgspec.structs.replace(CASES["tiny"], lists=600)


@pytest.fixture(scope="module")
def slates(tmp_path_factory: pytest.TempPathFactory) -> Slates:
    return slates_in(slates_of(SMALL, tmp_path_factory.mktemp("work"), None))


def other_feedback(part: SlateArrays) -> SlateArrays:
    turned = part.feedback.copy()
    turned[..., :] = turned[::-1]
    return replace(part, feedback=turned * (part.exposed >= 0)[..., None])


def test_where_some_were_not_shown_an_evaluator_of_the_training_log_judges(slates: Slates) -> None:
    order = given_order(slates.judged.count, SMALL.world.list_size if SMALL.world else 0)
    score = held_out_score(order, slates, SMALL)
    unseen = replace(slates, test=other_feedback(slates.test), judged=slates.judged)
    assert held_out_score(order, unseen, SMALL) == score
    # It is kept beside the slates, and the same when it is asked again.
    (kept,) = slates.folder.parent.glob("*.judge.pt")
    before = kept.stat().st_mtime_ns
    assert held_out_score(order, slates, SMALL) == score
    assert kept.stat().st_mtime_ns == before
    # It tells lists apart: what production showed is not what the given order would be.
    assert held_out_score(slates.judged.exposed[:, : order.shape[1]], slates, SMALL) != score


def test_where_all_were_shown_it_is_the_ndcg_of_the_judged_lists(slates: Slates) -> None:
    """With a log in which the first of three candidates alone has feedback."""
    part = slates.judged.take(np.arange(40))
    feedback = np.zeros_like(part.feedback)
    click = [one.kind for one in part.spec.feedback].index(part.spec.utility)
    feedback[:, 0, click] = 1.0
    shown = np.full_like(part.exposed, -1)
    shown[:, :3] = np.arange(3)
    whole = replace(part, count=np.full(40, 3, np.int32), exposed=shown, feedback=feedback)
    asked = replace(slates, judged=whole, valid=other_feedback(whole))
    for place in range(3):
        order = np.array([[1, 2]]).repeat(40, axis=0)
        order = np.insert(order, place, 0, axis=1).astype(np.int64)
        assert held_out_score(order, asked, SMALL) == pytest.approx(1 / np.log2(place + 2))


def test_lists_are_in_the_order_of_the_slates(slates: Slates) -> None:
    given = systems()["given"]
    (settings,) = given.trials(SMALL, 1)
    fitted = given.fit(slates, settings, 0, Path("unused")).fitted
    found = lists_of(fitted, slates.test, batch_size=7)
    assert (found == given_order(slates.test.count, found.shape[1])).all()
