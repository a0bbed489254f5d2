"""What is known of an exposure before it happens: features of user, video, and their past.

The past is the earlier slice alone (training/sources/history.py). Of it come rates, counts and
lifts of long views. A lift is the mean of what was left after the other side's rate: a video's
lift does not rise by being shown to users who watch everything, nor a user's taste for a tag by
the tag's popularity.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from training.sources.history import Counts, History, out_of_fold, running
from training.sources.initial_ranker import Rows
from training.sources.kuairand_files import USER_TEXT, VIDEO_TEXT, Entities, Exposures

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Lookup = Callable[[str, str], Counts]

#: Upper ends, in seconds, of the classes that a video's length falls into.
LENGTHS = np.array([7, 12, 18, 30, 45, 60, 90, 150, 300], float)
FOLDS = 5
#: How many observations the prior is worth, for users, for items, and for pairs of both.
USER_WEIGHT, ITEM_WEIGHT, PAIR_WEIGHT = 5.0, 20.0, 5.0

ITEM_KEYS = ("video", "author", "tag", "length")
PAIR_KEYS = ("user_author", "user_tag", "user_length")

USER_NUMBERS = ("user_rate", "user_lift", "user_count", "user_like_rate", "register_days")
ITEM_NUMBERS = (
    "duration",
    *(f"{key}_{what}" for key in ITEM_KEYS for what in ("rate", "lift", "count")),
    "video_like_rate",
    *(f"{key}_{what}" for key in PAIR_KEYS for what in ("lift", "count")),
    "user_video_rate",
    "user_video_count",
)


def log_scaled(name: str) -> bool:
    """Whether a number is a count or a length, hence taken on a log scale."""
    return name in ("register_days", "duration") or name.endswith("_count")


class PastFeatures:
    """Features of exposures from the tables of users and videos and from the earlier slice."""

    def __init__(self, users: Entities, videos: Entities, earlier: Exposures) -> None:
        self.users, self.videos = users, videos
        self.user_codes = {name: _codes(users.text[name]) for name in USER_TEXT}
        self.video_codes = {name: _codes(videos.text[name]) for name in VIDEO_TEXT}
        self.register_days = _not_negative(users.numbers["register_days"])
        self.duration = _not_negative(videos.numbers["video_duration"] / 1000)
        unknown = np.isnan(self.duration)
        classes = np.where(unknown, len(LENGTHS) + 1, np.searchsorted(LENGTHS, self.duration))
        self.length: Ints = classes.astype(np.int64)
        self._earlier, self._keys = earlier, self._keys_of(earlier)
        self._targets = self._residuals(earlier)
        self._histories: dict[tuple[str, str], History] = {}

    def past(self) -> dict[str, Floats]:
        """Numbers [N] of the earlier slice's own rows, none of which knows its own label."""
        return self._numbers(self._earlier, self._past)

    def later(self, exposures: Exposures) -> dict[str, Floats]:
        """Numbers [N] of rows after the earlier slice."""
        keys = self._keys_of(exposures)

        def lookup(key: str, target: str) -> Counts:
            if (key, target) not in self._histories:
                history = History(self._keys[key], self._targets[target])
                self._histories[key, target] = history
            return self._histories[key, target].of(keys[key])

        return self._numbers(exposures, lookup)

    def rows(self, exposures: Exposures, numbers: dict[str, Floats]) -> Rows:
        """What the initial ranker reads of N exposures."""
        user, video = self.users.at(exposures.user), self.videos.at(exposures.video)
        codes = [user, video, self.length[video]]
        codes += [coded[user] for coded in self.user_codes.values()]
        codes += [coded[video] for coded in self.video_codes.values()]
        columns = [
            np.log1p(numbers[name]) if log_scaled(name) else numbers[name]
            for name in (*USER_NUMBERS, *ITEM_NUMBERS)
        ]
        return Rows(np.stack(codes, axis=1), np.stack(columns, axis=1))

    def sizes(self) -> list[int]:
        """Numbers of codes of the columns of ``rows``."""
        sizes = [len(self.users.ids) + 1, len(self.videos.ids) + 1, len(LENGTHS) + 2]
        coded = [*self.user_codes.values(), *self.video_codes.values()]
        return sizes + [int(codes.max()) + 1 for codes in coded]

    def _past(self, key: str, target: str) -> Counts:
        labels = self._targets[target]
        if key.startswith("user"):
            return running(self._keys[key], labels)
        return out_of_fold(self._keys[key], labels, self._earlier.user % FOLDS)

    def _residuals(self, earlier: Exposures) -> dict[str, Floats]:
        """The labels, and what is left of them after the rate of the user and of the video."""
        self._targets = {
            kind: earlier.labels[kind].astype(np.float64) for kind in ("long_view", "like")
        }
        views = self._targets["long_view"]
        self._prior = {
            kind: float(labels.mean()) if len(labels) else 0.5
            for kind, labels in self._targets.items()
        }
        prior = self._prior["long_view"]
        of_user = self._past("user", "long_view").rate(prior, USER_WEIGHT)
        of_video = self._past("video", "long_view").rate(prior, ITEM_WEIGHT)
        return {**self._targets, "beyond_user": views - of_user, "beyond_video": views - of_video}

    def _keys_of(self, exposures: Exposures) -> dict[str, Ints]:
        video, user = self.videos.at(exposures.video), exposures.user
        items = {
            "video": exposures.video,
            "author": self.video_codes["author_id"][video],
            "tag": self.video_codes["tag"][video],
            "length": self.length[video],
        }
        pairs = {f"user_{name}": (user << 31) + key for name, key in items.items()}
        return {"user": user, **items, **pairs}

    def _numbers(self, exposures: Exposures, of: Lookup) -> dict[str, Floats]:
        user, video = self.users.at(exposures.user), self.videos.at(exposures.video)
        views, likes = self._prior["long_view"], self._prior["like"]
        by_user = of("user", "long_view")
        numbers = {
            "user_rate": by_user.rate(views, USER_WEIGHT),
            "user_lift": of("user", "beyond_video").rate(0.0, USER_WEIGHT),
            "user_count": by_user.times,
            "user_like_rate": of("user", "like").rate(likes, USER_WEIGHT),
            "register_days": self.register_days[user],
            "duration": self.duration[video],
            "video_like_rate": of("video", "like").rate(likes, ITEM_WEIGHT),
        }
        for key in ITEM_KEYS:
            found = of(key, "long_view")
            numbers[f"{key}_rate"] = found.rate(views, ITEM_WEIGHT)
            numbers[f"{key}_lift"] = of(key, "beyond_user").rate(0.0, ITEM_WEIGHT)
            numbers[f"{key}_count"] = found.times
        for key in PAIR_KEYS:
            found = of(key, "beyond_video")
            numbers[f"{key}_lift"] = found.rate(0.0, PAIR_WEIGHT)
            numbers[f"{key}_count"] = found.times
        seen = of("user_video", "long_view")
        numbers["user_video_rate"] = seen.rate(numbers["user_rate"], PAIR_WEIGHT)
        numbers["user_video_count"] = seen.times
        return numbers


def _codes(texts: npt.NDArray[np.object_]) -> Ints:
    """Values as codes from 0; missing is a value."""
    marked = np.array(["" if text is None else "=" + text for text in texts])
    return np.unique(marked, return_inverse=True)[1].astype(np.int64)


def _not_negative(values: Floats) -> Floats:
    """Numbers by entity, NaN for a negative one and, at the end, for an unknown entity."""
    padded = np.append(values, np.nan)
    return np.where(padded >= 0, padded, np.nan)
