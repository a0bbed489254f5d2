"""KuaiRand: nothing of the future, nothing of the exposed order, and every row accounted for."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from contracts.slates import Slate
from tests.sources.kuairand_files import (
    FAST,
    LOG,
    USERS,
    VIDEOS,
    Row,
    log_rows,
    sequence_rows,
    write,
)
from training.sources.base import SourceError, Tally
from training.sources.kuairand import KuaiRand, first_halves
from training.sources.kuairand_features import PastFeatures
from training.sources.kuairand_files import read_sequences, read_users, read_videos
from training.sources.kuairand_settings import KuaiRandSettings

SETTINGS = KuaiRandSettings(list_size=4, both_labels=False, ranker=FAST)
DAYS = ("2022-04-26", "2022-05-01", "2022-05-03")
EARLY_DAYS = ("2022-04-10", "2022-04-20", *DAYS)


def slates(folder: Path, **changes: Any) -> tuple[list[Slate], Tally]:
    tally = Tally()
    source = KuaiRand(folder, msgspec.structs.replace(SETTINGS, **changes))
    return list(source.slates(tally)), tally


def inputs(made: list[Slate]) -> dict[str, tuple[Any, ...]]:
    """All that a model reads of each request, and nothing that it is to predict."""
    return {one.request_id: (one.user, one.candidates, one.user_features) for one in made}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sequences, then a log."""
    return write(tmp_path_factory.mktemp("both"), log_rows(days=DAYS), sequence_rows())


@pytest.fixture(scope="module")
def made(both: Path) -> tuple[list[Slate], Tally]:
    return slates(both)


def test_every_row_is_in_a_list_in_the_earlier_slice_or_dropped(
    made: tuple[list[Slate], Tally],
) -> None:
    found, tally = made
    rows = 12 * 12 * len(DAYS) + 12 * 24
    assert tally.kept["exposures in lists"] == 4 * len(found)
    assert sum(tally.kept.values()) + sum(tally.dropped.values()) == rows
    assert tally.kept["exposures of the earlier slice"] == 12 * 12
    assert len(found) == 12 * 3 * (1 + len(DAYS))
    assert len({one.request_id for one in found}) == len(found)


def test_only_the_first_of_a_list_count_as_shown(
    both: Path, made: tuple[list[Slate], Tally]
) -> None:
    """The requests stay as they are; what they hold of the rest's feedback is gone."""
    part, _ = slates(both, shown=2)
    assert inputs(part) == inputs(made[0])
    for one, whole in zip(part, made[0]):
        assert one.exposed == whole.exposed[:2]
        assert one.feedback == tuple(f for f in whole.feedback if f.position < 2)
    assert KuaiRand(both, msgspec.structs.replace(SETTINGS, shown=2)).spec.list_size == 2
    with pytest.raises(ValueError, match="shown is 5; allowed"):
        msgspec.structs.replace(SETTINGS, shown=5)


def test_feedback_is_what_the_log_says(both: Path, made: tuple[list[Slate], Tally]) -> None:
    log = {(str(r["user_id"]), str(r["video_id"]), r["time_ms"]): r for r in log_rows(days=DAYS)}
    checked = 0
    for one in made[0]:
        if one.surface != "log":
            assert {f.kind for f in one.feedback} <= {"long_view", "like"}
            continue
        times = sorted(time for user, _, time in log if user == one.user and time >= one.time)
        for position, index in enumerate(one.exposed):
            row = log[one.user, one.candidates[index].item, times[position]]
            done = {f.kind: f.value for f in one.feedback if f.position == position}
            assert done.get("long_view", 0) == row["long_view"]
            assert done.get("click", 0) == row["is_click"]
            assert done["watch_time"] == row["play_time_ms"] / 1000
            checked += 1
    assert checked == 12 * 12 * len(DAYS)


def test_splits_are_ordered_in_time(made: tuple[list[Slate], Tally], both: Path) -> None:
    times = KuaiRand(both, SETTINGS).split_times
    spans: dict[str, list[int]] = {}
    for one in made[0]:
        shown = [one.time, *(f.time for f in one.feedback)]
        assert len({times.of(time) for time in shown}) == 1  # a list crosses no split
        spans.setdefault(times.of(one.time), []).extend(shown)
    assert max(spans["train"]) < min(spans["valid"])
    assert max(spans["valid"]) < min(spans["test"])
    sequences = [one.time for one in made[0] if one.surface == "sequence"]
    assert max(sequences) < min(one.time for one in made[0] if one.surface == "log")


def test_no_input_knows_the_future(tmp_path: Path, made: tuple[list[Slate], Tally]) -> None:
    """Turn every label after the earlier slice around: no input of any list may change."""
    log, sequences = log_rows(days=DAYS), sequence_rows()
    for row in log:
        row.update(long_view=1 - row["long_view"], is_like=1 - row["is_like"], play_time_ms=77)
    for row in sequences:
        if row["idx"] >= 12:
            row.update(long_view=1 - row["long_view"], is_like=1 - row["is_like"])
    found, _ = slates(write(tmp_path, log, sequences))
    assert inputs(found) == inputs(made[0])
    assert [one.feedback for one in found] != [one.feedback for one in made[0]]


def test_no_input_knows_what_is_shown_later(
    tmp_path: Path, made: tuple[list[Slate], Tally]
) -> None:
    """Without the test days, all other lists are as they were."""
    log = [row for row in log_rows(days=DAYS) if row["date"] < "20220503"]
    found, _ = slates(write(tmp_path, log, sequence_rows()))
    kept = inputs(found)
    assert len(kept) == 12 * 3 * 3
    assert kept == {name: value for name, value in inputs(made[0]).items() if name in kept}


@pytest.mark.parametrize("seed", range(3))
def test_the_given_order_tells_nothing_of_the_exposed_one(tmp_path: Path, seed: int) -> None:
    """Show the items of each list in another order: the inputs stay the same to the last bit."""
    rows = log_rows(days=EARLY_DAYS)
    before, _ = slates(write(tmp_path / "a", rows))
    after, _ = slates(write(tmp_path / "b", reordered(rows, seed)))
    assert inputs(after) == inputs(before)
    moved = sum(a.exposed != b.exposed for a, b in zip(before, after))
    assert moved > len(before) / 2
    for one in after:
        scores = [candidate.score for candidate in one.candidates]
        assert scores == sorted(scores, reverse=True)  # type: ignore[type-var]


def reordered(rows: list[Row], seed: int) -> list[Row]:
    """The exposures of each four in a row, hence of each list, in another order.

    The earlier slice stays as it is, for its order is part of the past.
    """
    rng = np.random.default_rng(seed)
    out = []
    for first in range(0, len(rows), 4):
        four = rows[first : first + 4]
        order = range(4) if four[0]["date"] < "20220422" else rng.permutation(4)
        for row, source in zip(four, order):
            out.append({**four[source], "time_ms": row["time_ms"]})
    return out


def test_equal_scores_are_ordered_by_item(tmp_path: Path) -> None:
    """Unknown videos have the same features: no order of exposure may shine through."""
    rows = log_rows(days=EARLY_DAYS)
    for row in rows:
        row["video_id"] += 1000 if row["date"] >= "20220422" else 0
    found, _ = slates(write(tmp_path, rows))
    tied = 0
    for one in found:
        for left, right in itertools.pairwise(one.candidates):
            if left.score == right.score:
                tied += 1
                assert int(left.item) < int(right.item)
    assert tied > 100


def test_rows_of_the_past_do_not_know_their_own_label(both: Path) -> None:
    """What the ranker is trained on must not hold the label that it is to predict."""
    users = read_users([both / USERS], Tally())
    videos = read_videos([both / VIDEOS], Tally())
    path = both / "exposure_sequences_before_4_25.csv.gz"
    past = read_sequences([path], 10**12, Tally())
    before = PastFeatures(users, videos, past).past()
    np.testing.assert_array_equal(before["user_count"], np.tile(np.arange(24), 12))
    # Of videos, what users of the other four folds saw: more than none, fewer than all.
    seen = np.bincount(past.video)[past.video]
    assert (before["video_count"] < seen).all()
    assert before["video_count"].mean() > 0.6 * seen.mean()
    for row in range(0, len(past), 17):
        turned = past.rows(np.arange(len(past)))
        turned.labels["long_view"][row] = 1 - turned.labels["long_view"][row]
        after = PastFeatures(users, videos, turned).past()
        for name, values in before.items():
            # The mean over all rows, the prior of every rate, moves by 1 / N with any label.
            assert abs(np.nan_to_num(values[row] - after[name][row])) < 2 / len(past), name


def test_first_halves() -> None:
    user = np.array([1, 1, 1, 2, 3, 3, 3, 3])
    of = np.array([1, 1, 1, 1, 1, 1, 0, 0], bool)
    assert first_halves(user, of).tolist() == [True, False, False, False, True] + [False] * 3


def test_without_sequences_the_first_days_train_the_ranker(tmp_path: Path) -> None:
    rows = log_rows(days=EARLY_DAYS)
    found, tally = slates(write(tmp_path, rows))
    assert tally.kept["exposures of the earlier slice"] == 2 * 12 * 12
    assert all(one.surface == "log" for one in found)
    late = [row for row in rows if row["date"] >= "20220422"]
    with pytest.raises(SourceError, match="give a later --earlier-until"):
        slates(write(tmp_path / "late", late))
    assert slates(tmp_path / "late", earlier_until="2022-04-28")[0]


def test_the_ranker_finds_the_good_videos(tmp_path: Path) -> None:
    folder = write(tmp_path, log_rows(users=40, days=EARLY_DAYS), users=40)
    ranker = msgspec.structs.replace(FAST, epochs=8, learning_rate=1e-2)
    _, tally = slates(folder, ranker=ranker, both_labels=True)
    assert tally.facts["test/auc/score"] > 0.7
    assert tally.facts["test/ndcg/given_order"] > tally.facts["test/ndcg/exposure_order"] + 0.1


def test_lists_of_one_label_are_dropped_when_asked(both: Path) -> None:
    found, tally = slates(both, both_labels=True)
    views = Counter(sum(f.kind == "long_view" for f in one.feedback) for one in found)
    assert set(views) <= {1, 2, 3}
    assert tally.dropped["exposure in a list without a long view"] > 0
    assert sum(tally.kept.values()) + sum(tally.dropped.values()) == 12 * 12 * 3 + 12 * 24


def test_rows_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    rows = log_rows(days=EARLY_DAYS)
    extra = [
        {**rows[0], "is_rand": 1, "time_ms": rows[0]["time_ms"] + 1},
        {**rows[0]},
        {**rows[0], "long_view": 2},
        {**rows[0], "video_id": "seven"},
        {**rows[0], "play_time_ms": -5, "time_ms": rows[0]["time_ms"] + 1},
        {**rows[0], "time_ms": 1_660_000_000_000},
    ]
    clean, _ = slates(write(tmp_path / "clean", rows))
    found, tally = slates(write(tmp_path / "dirty", rows + extra))
    assert tally.dropped == {
        "log: exposure of the random policy (is_rand)": 1,
        "log: the same exposure twice": 1,
        "log: long_view is neither 0 nor 1": 1,
        f"{LOG}: video_id is not a number": 1,
        "log: a time below 0": 1,
        "log: after the test days": 1,
    }
    assert found == clean


def test_strangers_have_missing_features(tmp_path: Path) -> None:
    rows = log_rows(days=EARLY_DAYS)
    for row in rows[-8:]:
        row.update(user_id=999, video_id=row["video_id"] + 500)
    found, _ = slates(write(tmp_path, rows))
    strange = [one for one in found if one.user == "999"]
    assert len(strange) == 2
    assert strange[0].user_features["user_active_degree"] is None
    assert strange[0].user_features["user_count"] == 0
    assert strange[0].candidates[0].features["duration"] is None
    assert strange[0].candidates[0].features["tag"] is None


def test_what_is_missing_is_named(tmp_path: Path, both: Path) -> None:
    with pytest.raises(SourceError, match="no such folder"):
        slates(tmp_path / "none")
    for name in (LOG, USERS, VIDEOS):
        folder = write(tmp_path / name, log_rows(days=EARLY_DAYS))
        (folder / name).unlink()
        with pytest.raises(SourceError, match=f"no file {name.split('made')[0][:12]}"):
            slates(folder)
    folder = write(tmp_path / "column", log_rows(days=EARLY_DAYS))
    text = (folder / LOG).read_text().replace("long_view", "long_look")
    (folder / LOG).write_text(text)
    with pytest.raises(SourceError, match=r"'long_view'.*columns needed"):
        slates(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"valid_from": "2022-05-04"}, "days must ascend"),
        ({"test_from": "3 May"}, "'3 May' is not a day"),
        ({"list_size": 1}, "allowed: 2 to 64"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KuaiRandSettings(**changes)


def test_fingerprint_is_of_what_is_read(tmp_path: Path) -> None:
    folder = write(tmp_path, log_rows(days=EARLY_DAYS))
    first = KuaiRand(folder, SETTINGS).fingerprint()
    (folder / "video_features_statistic_made.csv").write_text("the future")
    assert KuaiRand(folder, SETTINGS).fingerprint() == first
    with (folder / LOG).open("a") as file:
        file.write("\n")
    assert KuaiRand(folder, SETTINGS).fingerprint() != first
