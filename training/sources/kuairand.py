"""KuaiRand as a data source: pseudo-lists of one user's consecutive exposures.

Time runs: earlier slice (trains the initial ranker and gives the past its counts), then train,
valid and test. The earlier slice is the first half of each user's sequence, or, without the
sequences, the log's first days. The initial ranker's score orders the candidates, so a
candidate's position says nothing of when it was shown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.datasets import SPLITS, SplitTimes
from contracts.reading import canonical_json
from contracts.releases import file_sha256, settings_of
from contracts.slates import Slate
from training.sources.base import SourceError, Tally
from training.sources.initial_ranker import train_ranker
from training.sources.kuairand_features import PastFeatures
from training.sources.kuairand_files import (
    Exposures,
    join,
    read_log,
    read_sequences,
    read_users,
    read_videos,
)
from training.sources.kuairand_settings import KuaiRandSettings, kuairand_spec
from training.sources.kuairand_slates import SlateBuilder
from training.sources.order_quality import OrderQuality
from training.sources.pseudo_lists import cut_lists
from training.sources.tables import find

Ints = npt.NDArray[np.int64]

BLOCK_LISTS = 4096
EARLIER, SECOND_HALF, LOG = 0, 1, 2  # then valid and test


class KuaiRand:
    """Pseudo-lists of KuaiRand."""

    name = "kuairand"

    def __init__(self, folder: Path, settings: KuaiRandSettings) -> None:
        self._settings = settings
        self.spec = kuairand_spec(settings.shown or settings.list_size)
        self.split_times = SplitTimes(
            valid_from=settings.day("valid_from"), test_from=settings.day("test_from")
        )
        self._logs = find(folder, "log_standard_", "csv")
        self._sequences = find(folder, "exposure_sequences_", "csv", required=False)
        self._users = find(folder, "user_features_", "csv")
        self._videos = find(folder, "video_features_basic_", "csv")

    def settings(self) -> dict[str, Any]:
        return settings_of(self._settings)

    def fingerprint(self) -> str:
        """SHA-256 over names and contents of the files that are read."""
        paths = [*self._logs, *self._sequences, *self._users, *self._videos]
        hashes = {path.name: file_sha256(path) for path in paths}
        return hashlib.sha256(canonical_json(hashes)).hexdigest()

    def expected_lists(self) -> None:
        return None

    def slates(self, tally: Tally) -> Iterator[Slate]:
        """Pseudo-lists in the order of user and time."""
        tally.stage("reading")
        exposures = self._read(tally)
        segment = self._segments(exposures)
        earlier = exposures.rows(segment == EARLIER)
        users, videos = read_users(self._users, tally), read_videos(self._videos, tally)
        tally.stage(f"training the initial ranker on {len(earlier):,} exposures")
        past = PastFeatures(users, videos, earlier)
        ranker = train_ranker(
            past.rows(earlier, past.past()),
            earlier.labels["long_view"].astype(np.float64),
            past.sizes(),
            self._settings.ranker,
        )
        tally.stage("making lists")
        tally.keep("exposures of the earlier slice", len(earlier))
        in_lists = np.where(segment == EARLIER, -1, segment)
        size = self._settings.list_size
        lists = cut_lists(exposures.user, exposures.video, in_lists, size, tally)
        lists = self._with_both_labels(lists, exposures, tally)
        tally.keep("exposures in lists", lists.size)
        quality = {split: OrderQuality() for split in SPLITS}
        builder = SlateBuilder(exposures, past, ranker, self._settings.shown)
        for first in range(0, len(lists), BLOCK_LISTS):
            for slate in builder.slates(lists[first : first + BLOCK_LISTS]):
                quality[self.split_times.of(slate.time)].add(slate, self.spec.utility)
                yield slate
        for split, measured in quality.items():
            tally.facts.update(measured.facts(split))

    def _read(self, tally: Tally) -> Exposures:
        log = read_log(self._logs, tally)
        parts = [log]
        if self._sequences:
            until = self._settings.day("sequences_until")
            covered = log.time < until
            tally.drop("log: before the sequences end", int(covered.sum()))
            parts = [log.rows(~covered), read_sequences(self._sequences, until, tally)]
        exposures = join(parts)
        after = exposures.time >= self._settings.day("test_until")
        tally.drop("log: after the test days", int(after.sum()))
        return exposures.rows(~after)

    def _segments(self, exposures: Exposures) -> Ints:
        """The part of time that each exposure [N] belongs to."""
        if self._sequences:
            earlier = first_halves(exposures.user, ~exposures.from_log)
        else:
            earlier = exposures.time < self._settings.day("earlier_until")
        if not earlier.any():
            raise SourceError(
                "no exposure is left for the initial ranker: there are no sequences, and no log "
                f"row is before {self._settings.earlier_until}; give a later --earlier-until"
            )
        time = exposures.time
        begins = (self.split_times.valid_from, self.split_times.test_from)
        segment = np.where(exposures.from_log, LOG, SECOND_HALF)
        for begin in begins:
            segment = segment + (time >= begin)
        return np.asarray(np.where(earlier, EARLIER, segment), np.int64)

    def _with_both_labels(self, lists: Ints, exposures: Exposures, tally: Tally) -> Ints:
        if not self._settings.both_labels:
            return lists
        views = exposures.labels["long_view"][lists].sum(axis=1)
        tally.drop(
            "exposure in a list without a long view", int((views == 0).sum()) * lists.shape[1]
        )
        whole = views == lists.shape[1]
        tally.drop("exposure in a list of long views alone", int(whole.sum()) * lists.shape[1])
        return np.asarray(lists[(views > 0) & ~whole])


def first_halves(user: Ints, of: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Mask of the first half of each user's rows among ``of``; rows are sorted by user and time."""
    rows = np.flatnonzero(of)
    _, starts, inverse, counts = np.unique(
        user[rows], return_index=True, return_inverse=True, return_counts=True
    )
    mask = np.zeros(len(user), bool)
    mask[rows] = np.arange(len(rows)) - starts[inverse] < counts[inverse] // 2
    return mask
