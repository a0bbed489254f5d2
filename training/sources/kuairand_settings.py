"""Settings of the KuaiRand source, and its draft feature spec."""

from __future__ import annotations

from contracts.features import Categorical, Dense, FeatureGroup, FeatureSpec, FeedbackKind
from contracts.reading import Strict
from training.sources.days import day_ms
from training.sources.initial_ranker import RankerSettings
from training.sources.kuairand_features import ITEM_NUMBERS, USER_NUMBERS, log_scaled
from training.sources.kuairand_files import LABELS, USER_TEXT, VIDEO_TEXT, WATCH_TIME

UTC_OFFSET_HOURS = 8  # the log's days are China's


class KuaiRandSettings(Strict, kw_only=True, frozen=True):
    """Settings of pseudo-lists made from KuaiRand. Days are of China, and "until" is exclusive.

    Attributes:
        list_size: length of the lists, all of whose items are candidates.
        shown: only the first so many of a list, in time, count as shown; the others are candidates
            without feedback. 0: all of them.
        sequences_until: the day on which the sequences end; log rows before it are theirs.
        earlier_until: without sequences, the log before this day is the earlier slice.
        valid_from, test_from, test_until: where the held-out days begin and end.
        both_labels: keep only lists with a long view and an item without.
    """

    list_size: int = 6
    shown: int = 0
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
        if self.shown and not 2 <= self.shown <= self.list_size:
            raise ValueError(
                f"shown is {self.shown}; allowed: 2 to list_size ({self.list_size}), or 0 for all"
            )
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
