"""Small files in KuaiRand's official format, with a planted truth: good videos are viewed long."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.sources.days import day_ms
from training.sources.initial_ranker import RankerSettings
from training.sources.kuairand_files import LABELS, USER_TEXT

LOG = "log_standard_4_22_to_5_08_made.csv"
SEQUENCES = "exposure_sequences_before_4_25.csv.gz"
USERS = "user_features_made.csv"
VIDEOS = "video_features_basic_made.csv.gz"
FAST = RankerSettings(width=4, hidden=(8,), batch_size=256, epochs=1)

Row = dict[str, Any]


def log_rows(
    users: int = 12, videos: int = 60, days: Sequence[str] = (), each: int = 12, seed: int = 0
) -> list[Row]:
    """``each`` exposures of every user on every day; an item is shown to a user once."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        order = rng.permutation(videos)
        shown = iter(np.resize(order, each * len(days)).tolist())
        for day in days:
            times = np.sort(rng.choice(80_000_000, each, replace=False)) + day_ms(day, 8)
            for time in times.tolist():
                video = next(shown)
                long_view = int(rng.random() < (0.8 if video % 2 else 0.15))
                rows.append(
                    {
                        "user_id": user,
                        "video_id": video,
                        "date": day.replace("-", ""),
                        "time_ms": time,
                        **dict.fromkeys(LABELS.values(), 0),
                        "is_like": int(rng.random() < 0.1),
                        "is_click": max(long_view, int(rng.random() < 0.3)),
                        "long_view": long_view,
                        "play_time_ms": 1000 + 20_000 * long_view,
                        "is_rand": 0,
                    }
                )
    return rows


def sequence_rows(users: int = 12, videos: int = 60, each: int = 24, seed: int = 5) -> list[Row]:
    """Sequences without a clock."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        for idx, video in enumerate(rng.permutation(videos)[:each].tolist()):
            long_view = int(rng.random() < (0.8 if video % 2 else 0.15))
            rows.append(
                {
                    "user_id": user,
                    "idx": idx,
                    "video_id": video,
                    "long_view": long_view,
                    "is_like": int(rng.random() < 0.1),
                }
            )
    return rows


def write(
    folder: Path, log: list[Row], sequences: list[Row] | None = None, users: int = 12
) -> Path:
    """All files of a data set."""
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / LOG, log)
    if sequences is not None:
        write_csv(folder / SEQUENCES, sequences)
    write_csv(
        folder / USERS,
        [
            {
                "user_id": user,
                **{name: f"{name[0]}{user % 3}" for name in USER_TEXT},
                "register_days": 10 * user,
            }
            for user in range(users)
        ],
    )
    write_csv(
        folder / VIDEOS,
        [
            {
                "video_id": video,
                "author_id": video % 7,
                "video_type": "NORMAL",
                "upload_dt": "2022-04-01",
                "upload_type": "Web",
                "visible_status": 0.0,
                "video_duration": 5000.0 + 1000 * video if video % 10 else "",
                "server_width": 720,
                "server_height": 1280,
                "music_id": 1,
                "music_type": 9.0,
                "tag": f"{video % 5},1" if video % 4 else "",
            }
            for video in range(60)
        ],
    )
    return folder


def write_csv(path: Path, rows: list[Row]) -> None:
    opened: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
