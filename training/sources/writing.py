"""Writes a source's slates as a dataset: split by time, streamed, atomic.

Slates are written once under the draft spec while statistics of the training slice are gathered,
then each file gets the hash of the fitted spec into its schema. Memory holds one row group a
split, whatever the size of the source.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from contracts.datasets import FEATURES, MANIFEST, SPLITS, Dataset, SplitCounts
from contracts.features import FeatureSpec
from contracts.reading import ContractError, read_json, write_json, write_yaml
from contracts.slate_columns import slate_schema, to_table
from contracts.slates import Slate
from training.sources.base import Source, SourceError, Tally
from training.sources.fitting import SpecFitter
from training.sources.shuffling import shuffled_feedback

GROUP_ROWS, PART_ROWS = 2048, 16_384


class SplitWriter:
    """One split's part files, and what they hold."""

    def __init__(self, folder: Path, split: str, spec: FeatureSpec, fitter: SpecFitter | None):
        self._folder, self._split, self._spec, self._fitter = folder, split, spec, fitter
        self._buffer: list[Slate] = []
        self._writer: pq.ParquetWriter | None = None
        self._rows = 0
        self._users: set[str] = set()
        self._counts = SplitCounts(
            lists=0,
            exposures=0,
            users=0,
            with_utility=0,
            first_time=None,
            last_time=None,
            files=(),
        )
        (folder / split).mkdir()

    def add(self, slate: Slate) -> None:
        self._buffer.append(slate)
        if len(self._buffer) >= GROUP_ROWS:
            self._flush()

    def close(self) -> SplitCounts:
        """Write what is left; the counts of the whole split."""
        self._flush()
        if self._writer is not None:
            self._writer.close()
        return msgspec.structs.replace(self._counts, users=len(self._users))

    def _flush(self) -> None:
        slates, self._buffer = self._buffer, []
        if not slates:
            return
        table = to_table(slates, self._spec)
        if self._fitter is not None:
            self._fitter.add(table)
        if self._writer is None or self._rows >= PART_ROWS:
            self._next_part()
        assert self._writer is not None
        self._writer.write_table(table)
        self._rows += len(slates)
        self._count(slates)

    def _next_part(self) -> None:
        if self._writer is not None:
            self._writer.close()
        name = f"{self._split}/part-{len(self._counts.files):05d}.parquet"
        self._writer = pq.ParquetWriter(self._folder / name, slate_schema(self._spec))
        self._rows = 0
        self._counts = msgspec.structs.replace(self._counts, files=(*self._counts.files, name))

    def _count(self, slates: list[Slate]) -> None:
        counts, utility = self._counts, self._spec.utility
        times = [slate.time for slate in slates]
        self._users.update(slate.user for slate in slates)
        liked = sum(
            any(one.kind == utility and one.value > 0 for one in slate.feedback) for slate in slates
        )
        first, last = counts.first_time, counts.last_time
        self._counts = msgspec.structs.replace(
            counts,
            lists=counts.lists + len(slates),
            exposures=counts.exposures + sum(len(slate.exposed) for slate in slates),
            with_utility=counts.with_utility + liked,
            first_time=min(times) if first is None else min(first, *times),
            last_time=max(times) if last is None else max(last, *times),
        )


def write_dataset(
    source: Source,
    out: Path,
    *,
    force: bool = False,
    shuffle: int | None = None,
    fit: bool = True,
    progress: Callable[[int], None] = lambda _: None,
    stage: Callable[[str], None] = lambda _: None,
) -> Dataset:
    """Turn a source into a dataset at ``out``, or leave ``out`` as it was.

    Args:
        force: replace what is there, if this function made it.
        shuffle: seed to permute the feedback of train and valid with; None leaves it.
        fit: whether the source's spec is a draft to fit on train; a model that is trained further
            keeps the spec that it has.
        progress: told the number of slates written so far, now and then.
        stage: told what is being done, before work that takes a while.

    Raises:
        SourceError: unusable input, no list to train on, or an ``out`` that must not be replaced.
    """
    out = out.resolve()
    check_target(out, force)
    out.parent.mkdir(parents=True, exist_ok=True)
    building = out.parent / f".{out.name}.{os.getpid()}.partial"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    try:
        dataset = _build(source, building, shuffle, fit, progress, Tally(stage))
        _sync(building)
        _put(building, out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return dataset


def check_target(out: Path, force: bool) -> None:
    """Raise SourceError unless ``out`` is free, or a dataset that ``force`` may replace."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise SourceError(f"{out} is a file; give a folder")
    try:
        read_json(out / MANIFEST, Dataset)
    except ContractError as error:
        raise SourceError(
            f"{out} is not empty and was not made by prepare ({error}); give another folder"
        ) from error
    if not force:
        raise SourceError(f"{out} holds a dataset already; give another folder, or --force")


def _build(
    source: Source,
    folder: Path,
    shuffle: int | None,
    fit: bool,
    progress: Callable[[int], None],
    tally: Tally,
) -> Dataset:
    fitter = SpecFitter(source.spec) if fit else None
    writers = {
        split: SplitWriter(folder, split, source.spec, fitter if split == "train" else None)
        for split in SPLITS
    }
    for count, (split, slate) in enumerate(_split(source, tally, shuffle), start=1):
        writers[split].add(slate)
        if count % 256 == 0:
            progress(count)
    splits = {split: writer.close() for split, writer in writers.items()}
    progress(sum(counts.lists for counts in splits.values()))
    if not splits["train"].lists:
        reasons = ", ".join(f"{why} {n}" for why, n in tally.dropped.most_common())
        raise SourceError(f"no list is left to train on; dropped: {reasons or 'nothing'}")
    tally.stage("finishing")
    spec = source.spec if fitter is None else fitter.spec()
    for counts in splits.values():
        for name in counts.files:
            _stamp(folder / name, spec)
    dataset = Dataset(
        source=source.name,
        settings=source.settings(),
        fingerprint=source.fingerprint(),
        split_times=source.split_times,
        splits=splits,
        kept=dict(tally.kept),
        dropped=dict(tally.dropped),
        facts=tally.facts,
        shuffled_feedback=shuffle is not None,
        feature_spec_sha256=spec.hash(),
    )
    write_yaml(folder / FEATURES, spec)
    write_json(folder / MANIFEST, dataset)
    return dataset


def _split(source: Source, tally: Tally, shuffle: int | None) -> Iterator[tuple[str, Slate]]:
    times = source.split_times
    pairs: Iterable[tuple[str, Slate]] = (
        (times.of(slate.time), slate) for slate in source.slates(tally)
    )
    # The test slice keeps its own feedback, so that a model of the control can be judged by it.
    yield from pairs if shuffle is None else shuffled_feedback(pairs, ("train", "valid"), shuffle)


def _stamp(path: Path, spec: FeatureSpec) -> None:
    """Put the fitted spec's hash into the file's schema, group by group."""
    schema = slate_schema(spec)
    stamped = path.with_suffix(".stamped")
    with pq.ParquetFile(path) as file, pq.ParquetWriter(stamped, schema) as writer:
        for batch in file.iter_batches(GROUP_ROWS):
            table = pa.Table.from_batches([batch])
            writer.write_table(table.replace_schema_metadata(schema.metadata))
    stamped.replace(path)


def _sync(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _put(building: Path, out: Path) -> None:
    """Move the finished folder into place; what was there goes only once the new one stands."""
    old = out.parent / f".{out.name}.{os.getpid()}.old"
    if out.exists():
        out.rename(old)
    try:
        building.rename(out)
    except OSError:
        if old.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
