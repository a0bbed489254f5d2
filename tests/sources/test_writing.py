"""Datasets on disk: splits by time, a spec fitted on train alone, and all or nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from contracts.datasets import Dataset, part_files, read_dataset
from contracts.features import FeatureSpec
from contracts.reading import ContractError, write_yaml
from contracts.slate_columns import from_table
from contracts.slates import Slate
from tests.sources.made_slates import MadeSource, slate
from training.sources import writing
from training.sources.base import SourceError
from training.sources.writing import write_dataset

#: Ten slates before 100 ms (train), then one of valid and one of test with other values.
SLATES = [slate(number, 10 * number, age=float(number)) for number in range(10)] + [
    slate(10, 100, age=1000.0, group="held out"),
    slate(11, 200, age=-1000.0, group="held out"),
]


def read_split(folder: Path, split: str) -> list[Slate]:
    dataset, spec = read_dataset(folder)
    return [
        one
        for path in part_files(folder, dataset, split)
        for one in from_table(pq.read_table(path), spec)
    ]


def test_round_trip_by_split(tmp_path: Path) -> None:
    dataset = write_dataset(MadeSource(SLATES), tmp_path / "out")
    assert read_dataset(tmp_path / "out")[0] == dataset
    for split, expected in (
        ("train", SLATES[:10]),
        ("valid", SLATES[10:11]),
        ("test", SLATES[11:]),
    ):
        found = read_split(tmp_path / "out", split)
        assert [one.request_id for one in found] == [one.request_id for one in expected]
        assert [one.feedback for one in found] == [one.feedback for one in expected]
        assert [one.user_features for one in found] == [one.user_features for one in expected]
        counts = dataset.splits[split]
        assert (counts.lists, counts.exposures) == (len(expected), 2 * len(expected))
        assert counts.first_time == expected[0].time
        assert counts.last_time == expected[-1].time
    assert dataset.splits["train"].users == 3
    assert dataset.kept == {"lists": 12}
    assert dataset.dropped == {"nothing in particular": 7}


def test_spec_is_fitted_on_train_alone(tmp_path: Path) -> None:
    write_dataset(MadeSource(SLATES), tmp_path / "out")
    _, spec = read_dataset(tmp_path / "out")
    age = spec.user.dense[0]
    assert age.mean == pytest.approx(4.5)
    assert age.std == pytest.approx(np.std(np.arange(10)), rel=1e-5)
    assert spec.user.categorical[1].vocabulary == ("a",)
    price = spec.item.dense[1]
    logs = np.log1p([number + index for number in range(10) for index in range(3)])
    assert price.mean == pytest.approx(logs.mean(), rel=1e-5)
    assert price.std == pytest.approx(logs.std(), rel=1e-5)


def test_every_file_carries_the_fitted_spec(tmp_path: Path) -> None:
    dataset = write_dataset(MadeSource(SLATES), tmp_path / "out")
    for split in dataset.splits:
        for path in part_files(tmp_path / "out", dataset, split):
            found = pq.read_schema(path).metadata[b"feature_spec"].decode()
            assert found == dataset.feature_spec_sha256


def test_parts_are_bounded_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "GROUP_ROWS", 2)
    monkeypatch.setattr(writing, "PART_ROWS", 4)
    dataset = write_dataset(MadeSource(SLATES), tmp_path / "out")
    paths = part_files(tmp_path / "out", dataset, "train")
    assert [pq.read_metadata(path).num_rows for path in paths] == [4, 4, 2]
    found = read_split(tmp_path / "out", "train")
    assert [one.request_id for one in found] == [one.request_id for one in SLATES[:10]]
    assert dataset.splits["train"].lists == 10


@pytest.mark.parametrize("error", [SourceError("bad row"), KeyboardInterrupt()])
def test_a_failure_leaves_nothing_behind(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        write_dataset(MadeSource(SLATES, error), tmp_path / "out")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_dataset(tmp_path: Path) -> None:
    old = write_dataset(MadeSource(SLATES), tmp_path / "out")
    with pytest.raises(SourceError, match="bad row"):
        write_dataset(MadeSource(SLATES[:3], SourceError("bad row")), tmp_path / "out", force=True)
    assert read_dataset(tmp_path / "out")[0] == old
    assert len(read_split(tmp_path / "out", "train")) == 10
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_is_there_is_replaced_only_when_told_and_only_if_ours(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_dataset(MadeSource(SLATES), out)
    with pytest.raises(SourceError, match="--force"):
        write_dataset(MadeSource(SLATES), out)
    assert write_dataset(MadeSource(SLATES[:5]), out, force=True).splits["train"].lists == 5
    assert [path.name for path in tmp_path.iterdir()] == ["out"]

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(SourceError, match="not made by prepare"):
        write_dataset(MadeSource(SLATES), tmp_path / "mine", force=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    with pytest.raises(SourceError, match="is a file"):
        write_dataset(MadeSource(SLATES), tmp_path / "mine" / "thesis.txt", force=True)


def test_nothing_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no list is left to train on; dropped: nothing in pa"):
        write_dataset(MadeSource(SLATES[10:]), tmp_path / "out")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (slate(1, 1, age=float("nan")), "age: NaN or infinite"),
        (slate(-5, 1), "price: below 0, which log1p cannot take"),
    ],
)
def test_values_that_the_encoder_would_refuse(tmp_path: Path, bad: Slate, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        write_dataset(MadeSource([*SLATES, bad]), tmp_path / "out")


def test_missing_numbers_count_for_nothing(tmp_path: Path) -> None:
    slates = [slate(number, number, age=None if number else 3.0) for number in range(5)]
    write_dataset(MadeSource(slates), tmp_path / "out")
    age = read_dataset(tmp_path / "out")[1].user.dense[0]
    assert (age.mean, age.std) == (3.0, 1.0)


def test_vocabulary_too_large(tmp_path: Path) -> None:
    slates = [slate(number, 1, group=f"g{number}") for number in range(1001)]
    with pytest.raises(SourceError, match=r"group has more than 1000 values.*buckets"):
        write_dataset(MadeSource(slates), tmp_path / "out")


def test_a_dataset_that_was_tampered_with(tmp_path: Path) -> None:
    dataset = write_dataset(MadeSource(SLATES), tmp_path / "out")
    _, spec = read_dataset(tmp_path / "out")
    part_files(tmp_path / "out", dataset, "test")[0].unlink()
    with pytest.raises(ContractError, match="no such file"):
        part_files(tmp_path / "out", dataset, "test")
    with pytest.raises(ContractError, match="no such file"):
        read_dataset(tmp_path / "out")
    with pytest.raises(ContractError, match="allowed: train, valid, test"):
        part_files(tmp_path / "out", dataset, "tset")
    write_yaml(tmp_path / "out" / "features.yaml", msgspec.structs.replace(spec, list_size=3))
    with pytest.raises(ContractError, match=r"is not the one of dataset\.json"):
        read_dataset(tmp_path / "out")


def test_shuffled_feedback_spares_the_test_split(tmp_path: Path) -> None:
    slates = [slate(number, number) for number in range(90)]
    slates += [slate(number, 200 + number) for number in range(90)]
    dataset = write_dataset(MadeSource(slates), tmp_path / "out", shuffle=3)
    assert dataset.shuffled_feedback
    train, test = read_split(tmp_path / "out", "train"), read_split(tmp_path / "out", "test")
    assert [one.feedback for one in test] == [one.feedback for one in slates[90:]]
    assert [one.feedback for one in train] != [one.feedback for one in slates[:90]]


def test_the_same_source_writes_the_same_dataset(tmp_path: Path) -> None:
    made: list[tuple[Dataset, FeatureSpec]] = []
    for name in ("one", "two"):
        write_dataset(MadeSource(SLATES), tmp_path / name)
        made.append(read_dataset(tmp_path / name))
    assert made[0] == made[1]


def test_the_current_folder_may_be_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_dataset(MadeSource(SLATES), Path())
    assert read_dataset(tmp_path / "here")[0].splits["train"].lists == 10
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
