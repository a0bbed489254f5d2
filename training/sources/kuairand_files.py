"""KuaiRand's files as columns: the official CSVs, and sequences of exposures without a clock.

Official (github.com/chongminggao/KuaiRand): ``log_standard_*.csv``, ``user_features_*.csv``,
``video_features_basic_*.csv``. Sequences: ``exposure_sequences_*.csv`` with user_id, idx,
video_id, long_view, is_like. All plain or .gz. ``video_features_statistic_*`` is never read: its
statistics cover the whole period, so they would give the future away.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from training.sources.base import Tally
from training.sources.tables import Columns, numbers, read_table

Ints = npt.NDArray[np.int64]

#: Feedback kind -> column. The sequences have the first two only.
LABELS = {
    "long_view": "long_view",
    "like": "is_like",
    "click": "is_click",
    "follow": "is_follow",
    "comment": "is_comment",
    "forward": "is_forward",
    "hate": "is_hate",
}
SEQUENCE_LABELS = ("long_view", "like")
WATCH_TIME = "watch_time"  # seconds; the log's play_time_ms

USER_TEXT = (
    "user_active_degree",
    "is_live_streamer",
    "is_video_author",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
    *(f"onehot_feat{number}" for number in range(18)),
)
VIDEO_TEXT = ("author_id", "video_type", "upload_type", "music_type", "tag")


@dataclass(frozen=True)
class Exposures:
    """N exposures in the order of user, then time.

    Attributes:
        user, video, time: [N]; time in ms. Of sequences it is an ordinal before the log begins.
        from_log: [N], False for rows of sequences.
        labels: kind -> int8 [N]; -1 where the kind was not recorded.
        watch_ms: [N]; -1 where it was not recorded.
    """

    user: Ints
    video: Ints
    time: Ints
    from_log: npt.NDArray[np.bool_]
    labels: dict[str, npt.NDArray[np.int8]]
    watch_ms: Ints

    def __len__(self) -> int:
        return len(self.user)

    def rows(self, index: npt.NDArray) -> Exposures:  # type: ignore[type-arg]
        """The rows that a mask or an index array [K] chooses, in its order."""
        return Exposures(
            user=self.user[index],
            video=self.video[index],
            time=self.time[index],
            from_log=self.from_log[index],
            labels={kind: values[index] for kind, values in self.labels.items()},
            watch_ms=self.watch_ms[index],
        )


def read_log(paths: list[Path], tally: Tally) -> Exposures:
    """The standard-policy log: random exposures, impossible labels and duplicates dropped."""
    whole = ["user_id", "video_id", "time_ms", *LABELS.values(), "play_time_ms", "is_rand"]
    table = pa.concat_tables([read_table(path, Columns(whole=whole), tally) for path in paths])
    columns = {name: numbers(table, name) for name in whole}
    keep = columns["is_rand"] == 0
    tally.drop("log: exposure of the random policy (is_rand)", int((~keep).sum()))
    keep &= _binary(columns, LABELS, keep, "log", tally)
    odd = (columns["play_time_ms"] < 0) | (columns["time_ms"] < 0)
    tally.drop("log: a time below 0", int((keep & odd).sum()))
    keep &= ~odd
    found = Exposures(
        user=columns["user_id"],
        video=columns["video_id"],
        time=columns["time_ms"],
        from_log=np.ones(table.num_rows, bool),
        labels={kind: columns[name].astype(np.int8) for kind, name in LABELS.items()},
        watch_ms=columns["play_time_ms"],
    ).rows(keep)
    order = np.lexsort((found.video, found.time, found.user))
    found = found.rows(order)
    return found.rows(_first_of(found.user, found.time, found.video, tally, "log"))


def read_sequences(paths: list[Path], until: int, tally: Tally) -> Exposures:
    """Sequences, their order turned into an ordinal time: one second apart, ending at ``until``."""
    whole = ["user_id", "idx", "video_id", "long_view", "is_like"]
    table = pa.concat_tables([read_table(path, Columns(whole=whole), tally) for path in paths])
    columns = {name: numbers(table, name) for name in whole}
    labels = {kind: LABELS[kind] for kind in SEQUENCE_LABELS}
    keep = _binary(columns, labels, np.ones(table.num_rows, bool), "sequences", tally)
    columns = {name: values[keep] for name, values in columns.items()}
    order = np.lexsort((columns["idx"], columns["user_id"]))
    columns = {name: values[order] for name, values in columns.items()}
    user, idx = columns["user_id"], columns["idx"]
    first = _first_of(user, idx, np.zeros_like(user), tally, "sequences")
    columns = {name: values[first] for name, values in columns.items()}
    user = columns["user_id"]
    size = len(user)
    missing = np.full(size, -1, np.int8)
    return Exposures(
        user=user,
        video=columns["video_id"],
        time=until - 1000 * _rows_after(user),
        from_log=np.zeros(size, bool),
        labels={
            kind: columns[name].astype(np.int8) if kind in SEQUENCE_LABELS else missing
            for kind, name in LABELS.items()
        },
        watch_ms=np.full(size, -1, np.int64),
    )


def join(parts: list[Exposures]) -> Exposures:
    """Several parts as one, in the order of user, then time."""
    both = Exposures(
        user=np.concatenate([part.user for part in parts]),
        video=np.concatenate([part.video for part in parts]),
        time=np.concatenate([part.time for part in parts]),
        from_log=np.concatenate([part.from_log for part in parts]),
        labels={kind: np.concatenate([part.labels[kind] for part in parts]) for kind in LABELS},
        watch_ms=np.concatenate([part.watch_ms for part in parts]),
    )
    return both.rows(np.lexsort((both.time, both.user)))


@dataclass(frozen=True)
class Entities:
    """Users or videos with their text features, looked up by id.

    Attributes:
        ids: ascending [K]. text: name -> [K] strings or None. numbers: name -> [K], NaN missing.
    """

    ids: Ints
    text: dict[str, npt.NDArray[np.object_]]
    numbers: dict[str, npt.NDArray[np.float64]]

    def at(self, ids: Ints) -> Ints:
        """Row of each id; K, one past the end, for an unknown id."""
        if not len(self.ids):
            return np.zeros(len(ids), np.int64)
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[at] == ids, at, len(self.ids))


def read_users(paths: list[Path], tally: Tally) -> Entities:
    return _entities(paths, "user_id", ("register_days",), USER_TEXT, tally)


def read_videos(paths: list[Path], tally: Tally) -> Entities:
    return _entities(paths, "video_id", ("video_duration",), VIDEO_TEXT, tally)


def _entities(
    paths: list[Path], key: str, optional: tuple[str, ...], text: tuple[str, ...], tally: Tally
) -> Entities:
    columns = Columns(whole=(key,), optional=optional, text=text)
    table = pa.concat_tables([read_table(path, columns, tally) for path in paths])
    ids, first = np.unique(numbers(table, key), return_index=True)
    tally.drop(f"{paths[0].name}: {key} repeated", table.num_rows - len(ids))
    table = table.take(pa.array(first))
    return Entities(
        ids=ids,
        text={name: _texts(table[name]) for name in text},
        numbers={name: numbers(table, name) for name in optional},
    )


def _texts(column: pa.ChunkedArray) -> npt.NDArray[np.object_]:
    """Strings or None, and a None at the end for unknown ids; "1.0" and "1" are one category."""
    plain = pc.replace_substring_regex(column, r"^(-?[0-9]+)\.0+$", r"\1")
    return np.array([*plain.to_pylist(), None], dtype=object)


def _binary(
    columns: dict[str, Ints],
    labels: dict[str, str],
    among: npt.NDArray[np.bool_],
    where: str,
    tally: Tally,
) -> npt.NDArray[np.bool_]:
    good = among.copy()
    for name in labels.values():
        fine = (columns[name] == 0) | (columns[name] == 1)
        tally.drop(f"{where}: {name} is neither 0 nor 1", int((good & ~fine).sum()))
        good &= fine
    return np.asarray(good)


def _first_of(a: Ints, b: Ints, c: Ints, tally: Tally, where: str) -> npt.NDArray[np.bool_]:
    """Mask of rows that differ from the row before them; rows are sorted by (a, b, c)."""
    keys = np.stack([a, b, c])
    first = np.ones(len(a), bool)
    first[1:] = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
    tally.drop(f"{where}: the same exposure twice", int((~first).sum()))
    return first


def _rows_after(user: Ints) -> Ints:
    """For rows sorted by user: how many rows of the user follow, plus one."""
    ends = np.r_[np.flatnonzero(user[1:] != user[:-1]), len(user) - 1]
    end = ends[np.searchsorted(ends, np.arange(len(user)))]
    return np.asarray(end - np.arange(len(user)) + 1, np.int64)
