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
from contracts.features import Categorical, Dense, FeatureGroup, FeatureSpec, FeedbackKind
from contracts.reading import Strict, canonical_json
from contracts.releases import file_sha256, settings_of
from contracts.slates import Candidate, Feedback, Scalar, Slate
from training.sources.base import SourceError, Tally
from training.sources.days import day_ms
from training.sources.initial_ranker import (
    InitialRanker,
    RankerSettings,
    rank_scores,
    train_ranker,
)
from training.sources.kuairand_features import (
    ITEM_NUMBERS,
    USER_NUMBERS,
    PastFeatures,
    log_scaled,
)
from training.sources.kuairand_files import (
    LABELS,
    USER_TEXT,
    VIDEO_TEXT,
    WATCH_TIME,
    Exposures,
    find,
    join,
    read_log,
    read_sequences,
    read_users,
    read_videos,
)
from training.sources.order_quality import OrderQuality
from training.sources.pseudo_lists import cut_lists

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

UTC_OFFSET_HOURS = 8  # the log's days are China's
BLOCK_LISTS = 4096
EARLIER, SECOND_HALF, LOG = 0, 1, 2  # then valid and test


class KuaiRandSettings(Strict, kw_only=True, frozen=True):
    """Settings of pseudo-lists made from KuaiRand. Days are of China, and "until" is exclusive.

    Attributes:
        list_size: length of the lists, all of whose items are candidates.
        sequences_until: the day on which the sequences end; log rows before it are theirs.
        earlier_until: without sequences, the log before this day is the earlier slice.
        valid_from, test_from, test_until: where the held-out days begin and end.
        both_labels: keep only lists with a long view and an item without.
    """

    list_size: int = 6
    sequences_until: str = "2022-04-25"
    earlier_until: str = "2022-04-22"
    valid_from: str = "2022-05-01"
    test_from: str = "2022-05-03"
    test_until: str = "2022-05-05"
    both_labels: bool = True
    ranker: RankerSettings = RankerSettings()

    def __post_init__(self) -> None:
        if not 2 <= self.list_size <= 64:
            raise ValueError(f"list_size is {self.list_size}; allowed: 2 to 64")
        names = ("earlier_until", "valid_from", "test_from", "test_until")
        if sorted(days := [self.day(name) for name in names]) != days:
            raise ValueError(f"days must ascend: {', '.join(names)}")

    def day(self, name: str) -> int:
        """A day of these settings, in ms."""
        return day_ms(getattr(self, name), UTC_OFFSET_HOURS)


def kuairand_spec(list_size: int) -> FeatureSpec:
    """The draft feature spec."""
    hashed = {"onehot_feat3": (4096, 8), "author_id": (16_384, 8)}

    def category(name: str) -> Categorical:
        if name in hashed:
            return Categorical(name=name, buckets=hashed[name][0], width=hashed[name][1])
        return Categorical(name=name, vocabulary=(), width=8 if name == "tag" else 4)

    def number(name: str) -> Dense:
        return Dense(name=name, transform="log1p" if log_scaled(name) else "identity")

    return FeatureSpec(
        user=FeatureGroup(
            categorical=(
                Categorical(name="user", buckets=65_536, width=8),
                *(category(name) for name in USER_TEXT),
            ),
            dense=tuple(number(name) for name in USER_NUMBERS),
        ),
        item=FeatureGroup(
            categorical=(
                Categorical(name="item", buckets=32_768, width=16),
                category("length_class"),
                *(category(name) for name in VIDEO_TEXT),
            ),
            dense=(Dense(name="score"), *(number(name) for name in ITEM_NUMBERS)),
        ),
        list_size=list_size,
        feedback=(
            *(FeedbackKind(kind=kind, type="binary") for kind in LABELS),
            FeedbackKind(kind=WATCH_TIME, type="continuous"),
        ),
        utility="long_view",
    )


class KuaiRand:
    """Pseudo-lists of KuaiRand."""

    name = "kuairand"

    def __init__(self, folder: Path, settings: KuaiRandSettings) -> None:
        self._settings = settings
        self.spec = kuairand_spec(settings.list_size)
        self.split_times = SplitTimes(
            valid_from=settings.day("valid_from"), test_from=settings.day("test_from")
        )
        if not folder.is_dir():
            raise SourceError(f"{folder}: no such folder")
        self._logs = find(folder, "log_standard_")
        self._sequences = find(folder, "exposure_sequences_", required=False)
        self._users = find(folder, "user_features_")
        self._videos = find(folder, "video_features_basic_")

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
        exposures = self._read(tally)
        segment = self._segments(exposures)
        earlier = exposures.rows(segment == EARLIER)
        users, videos = read_users(self._users, tally), read_videos(self._videos, tally)
        past = PastFeatures(users, videos, earlier)
        ranker = train_ranker(
            past.rows(earlier, past.past()),
            earlier.labels["long_view"].astype(np.float64),
            past.sizes(),
            self._settings.ranker,
        )
        tally.keep("exposures of the earlier slice", len(earlier))
        in_lists = np.where(segment == EARLIER, -1, segment)
        size = self._settings.list_size
        lists = cut_lists(exposures.user, exposures.video, in_lists, size, tally)
        lists = self._with_both_labels(lists, exposures, tally)
        tally.keep("exposures in lists", lists.size)
        quality = {split: OrderQuality() for split in SPLITS}
        builder = SlateBuilder(exposures, past, ranker)
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
        return lists[(views > 0) & ~whole]


def first_halves(user: Ints, of: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Mask of the first half of each user's rows among ``of``; rows are sorted by user and time."""
    rows = np.flatnonzero(of)
    _, starts, inverse, counts = np.unique(
        user[rows], return_index=True, return_inverse=True, return_counts=True
    )
    mask = np.zeros(len(user), bool)
    mask[rows] = np.arange(len(rows)) - starts[inverse] < counts[inverse] // 2
    return mask


class SlateBuilder:
    """Turns lists of exposures into slates whose candidates the initial ranker has ordered."""

    def __init__(self, exposures: Exposures, past: PastFeatures, ranker: InitialRanker) -> None:
        self.exposures, self.past, self.ranker = exposures, past, ranker
        self._next: dict[int, int] = {}

    def slates(self, lists: Ints) -> Iterator[Slate]:
        """Slates of lists [L, size] of exposures."""
        shown = self.exposures.rows(lists.ravel())
        numbers = self.past.later(shown)
        scores = rank_scores(self.ranker, self.past.rows(shown, numbers)).reshape(lists.shape)
        users, videos = self.past.users.at(shown.user), self.past.videos.at(shown.video)
        columns: dict[str, list[Scalar]] = {
            name: [None if value != value else value for value in numbers[name].tolist()]
            for name in (*USER_NUMBERS, *ITEM_NUMBERS)
        }
        columns["length_class"] = [str(value) for value in self.past.length[videos]]
        columns.update({n: self.past.videos.text[n][videos].tolist() for n in VIDEO_TEXT})
        columns.update({n: self.past.users.text[n][users].tolist() for n in USER_TEXT})
        items = shown.video.reshape(lists.shape)
        # By score, then by id: what was shown when has no part in the order.
        given = np.lexsort((items, -scores), axis=1)
        position = np.argsort(given, axis=1)
        for index, order in enumerate(given.tolist()):
            first = index * lists.shape[1]
            yield Slate(
                request_id=self._request_id(int(shown.user[first])),
                user=str(shown.user[first]),
                time=int(shown.time[first]),
                surface="log" if shown.from_log[first] else "sequence",
                release="production",
                candidates=tuple(
                    Candidate(
                        item=str(items[index, column]),
                        score=float(scores[index, column]),
                        features={
                            name: columns[name][first + column]
                            for name in (*ITEM_NUMBERS, "length_class", *VIDEO_TEXT)
                        },
                    )
                    for column in order
                ),
                exposed=tuple(position[index].tolist()),
                user_features={name: columns[name][first] for name in (*USER_NUMBERS, *USER_TEXT)},
                feedback=_feedback(shown, first, lists.shape[1]),
            )

    def _request_id(self, user: int) -> str:
        number = self._next[user] = self._next.get(user, 0) + 1
        return f"k{user}-{number}"


def _feedback(shown: Exposures, first: int, size: int) -> tuple[Feedback, ...]:
    """What was done with the exposures ``first`` to ``first + size``; times are of exposure."""
    found = [
        Feedback(
            position=position,
            kind=kind,
            value=1.0,
            time=int(shown.time[first + position]),
        )
        for kind, labels in shown.labels.items()
        for position in np.flatnonzero(labels[first : first + size] > 0).tolist()
    ]
    found += [
        Feedback(
            position=position,
            kind=WATCH_TIME,
            value=float(shown.watch_ms[first + position]) / 1000,
            time=int(shown.time[first + position]),
        )
        for position in np.flatnonzero(shown.watch_ms[first : first + size] > 0).tolist()
    ]
    return tuple(found)
