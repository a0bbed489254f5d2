"""A prepared dataset: slates split by time, the feature spec, and where it all came from.

::

    slates/
      dataset.json         this struct
      features.yaml        FeatureSpec, fitted on the training split alone
      train/part-00000.parquet ...   columns of contracts/slate_columns.py
      valid/  test/
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from contracts.features import FeatureSpec
from contracts.reading import ContractError, Strict, read_json, read_yaml

MANIFEST, FEATURES = "dataset.json", "features.yaml"
SPLITS = ("train", "valid", "test")


class SplitTimes(Strict, kw_only=True, frozen=True):
    """Where the splits begin, in ms since the epoch: train before valid before test."""

    valid_from: int
    test_from: int

    def __post_init__(self) -> None:
        if self.valid_from > self.test_from:
            raise ValueError(
                f"valid_from is {self.valid_from}; allowed: at most test_from, {self.test_from}"
            )

    def of(self, time: int) -> str:
        """The split that a slate shown at ``time`` belongs to."""
        if time < self.valid_from:
            return "train"
        return "valid" if time < self.test_from else "test"


class SplitCounts(Strict, kw_only=True, frozen=True):
    """What one split holds; times in ms, None where it is empty."""

    lists: int
    exposures: int
    users: int
    with_utility: int
    first_time: int | None
    last_time: int | None
    files: tuple[str, ...]


class Dataset(Strict, kw_only=True, frozen=True):
    """``dataset.json``.

    Attributes:
        source: name of the source; settings: its typed settings, as plain data.
        fingerprint: SHA-256 over the input files, or over the settings where there are none.
        kept, dropped: rows by what they are, and by the reason why they are not there.
        facts: measured while preparing, by name (an initial ranker's AUC, a world's headroom).
        shuffled_feedback: whether the feedback of train and valid was permuted among lists.
    """

    version: Literal[1] = 1
    source: str
    settings: dict[str, Any]
    fingerprint: str
    split_times: SplitTimes
    splits: dict[str, SplitCounts]
    kept: dict[str, int]
    dropped: dict[str, int]
    facts: dict[str, float]
    shuffled_feedback: bool
    feature_spec_sha256: str


def read_dataset(folder: str | Path) -> tuple[Dataset, FeatureSpec]:
    """The manifest and the feature spec of a prepared folder.

    Raises:
        ContractError: one is missing or wrong, the spec is not the one of the manifest, or a
            file of slates is missing: a copy cut short would train on the rest in silence.
    """
    folder = Path(folder)
    dataset = read_json(folder / MANIFEST, Dataset)
    spec = read_yaml(folder / FEATURES, FeatureSpec)
    if spec.hash() != dataset.feature_spec_sha256:
        raise ContractError(
            f"{folder}: {FEATURES} is not the one of {MANIFEST} (found {spec.hash()[:12]}, "
            f"recorded {dataset.feature_spec_sha256[:12]}); prepare the dataset again"
        )
    for split in dataset.splits:
        part_files(folder, dataset, split)
    return dataset, spec


def part_files(folder: str | Path, dataset: Dataset, split: str) -> list[Path]:
    """Paths of a split's Parquet files, in the order of their rows.

    Raises:
        ContractError: an unknown split, or a file that is missing.
    """
    if split not in dataset.splits:
        raise ContractError(f"{folder}: split {split!r}; allowed: {', '.join(dataset.splits)}")
    paths = [Path(folder) / name for name in dataset.splits[split].files]
    for path in paths:
        if not path.is_file():
            raise ContractError(f"{path}: no such file; prepare the dataset again")
    return paths
