"""Feedback tables with known content, written in Delta format with the product's own schema."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from contracts.experiment_metrics import Guardrail, Metric, StoppingRule
from contracts.experiments import Arm, Experiment
from contracts.features import Categorical, Dense, FeatureGroup, FeatureSpec, FeedbackKind
from contracts.feedback_table import day_of, table_schema
from streaming.feedback_table.opening import create_or_open

HOUR, DAY = 3_600_000, 86_400_000
#: 2026-03-02 00:00 UTC.
START = 1_772_409_600_000
STARTED = "2026-03-02T00:00:00+00:00"

CLICKS = Metric(name="clicks", kind="click")
WATCH = Metric(name="watch", kind="watch_time", per="item")
HIDES = Metric(name="hides", kind="hide", better="lower")

SPEC = FeatureSpec(
    user=FeatureGroup(categorical=(Categorical(name="segment", vocabulary=(), width=4),)),
    item=FeatureGroup(dense=(Dense(name="quality"),)),
    list_size=4,
    feedback=(
        FeedbackKind(kind="click", type="binary"),
        FeedbackKind(kind="watch_time", type="continuous"),
        FeedbackKind(kind="hide", type="binary"),
    ),
    utility="click",
)


def experiment(**changes: Any) -> Experiment:
    """A running experiment of r0002 against the champion, half and half."""
    fields: dict[str, Any] = {
        "name": "try",
        "salt": "s1",
        "state": "running",
        "arms": (
            Arm(name="control", release="champion", weight=0.5),
            Arm(name="new", release="r0002", weight=0.5),
        ),
        "primary": CLICKS,
        "secondary": (WATCH,),
        "guardrails": (Guardrail(metric=HIDES, limit=0.2),),
        "stopping": StoppingRule(min_units=100, mde=0.05),
        "started": STARTED,
    }
    return Experiment(**{**fields, **changes})


def write(uri: Path, columns: Mapping[str, Any], items: int = 4) -> str:
    """Write lists to a table, which is made if need be; what is not given has a default.

    Args:
        columns: user and time [L]; arm, surface, fallback, segment [L] or one text; feedback by
            kind [L, items], NaN where nothing was done.
    """
    count = len(columns["user"])
    schema = table_schema(SPEC)
    create_or_open(str(uri), SPEC, {})

    def texts(name: str, default: str) -> list[str]:
        value = columns.get(name, default)
        return [value] * count if isinstance(value, str) else list(value)

    def lists(values: np.ndarray, kind: pa.DataType) -> pa.Array:
        flat = np.asarray(values).reshape(-1)
        mask = np.isnan(flat) if flat.dtype.kind == "f" else None
        offsets = np.arange(count + 1, dtype=np.int32) * np.asarray(values).shape[1]
        return pa.ListArray.from_arrays(offsets, pa.array(flat, kind, mask=mask))

    time = [int(one) for one in columns["time"]]
    ids = columns.get("request_id", [f"q{t}-{n}" for n, t in enumerate(time)])
    shown = np.tile(np.arange(items, dtype=np.int32), (count, 1))
    nothing = np.full((count, items), np.nan)
    arrays: dict[str, Any] = {
        "request_id": list(ids),
        "user": list(columns["user"]),
        "time": time,
        "surface": texts("surface", "home"),
        "release": texts("release", "r0001"),
        "arm": texts("arm", ""),
        "fallback": texts("fallback", ""),
        "candidates": [[f"i{n}" for n in range(items)]] * count,
        "scores": [None] * count,
        "exposed": lists(shown, pa.int32()),
        "log_prob": [None] * count,
        "temperature": [0.0] * count,
        "seed": [0] * count,
        "user__segment": texts("segment", "a"),
        "item__quality": lists(np.zeros((count, items)), pa.float64()),
        "day": [day_of(t) for t in time],
    }
    for kind in ("click", "watch_time", "hide"):
        values = columns.get(kind, nothing)
        arrays[f"feedback__{kind}"] = lists(values, pa.float64())
        arrays[f"feedback_time__{kind}"] = [None] * count
    table = pa.table({f.name: pa.array(arrays[f.name], f.type)
                      if not isinstance(arrays[f.name], pa.Array) else arrays[f.name]
                      for f in schema}, schema=schema)  # fmt: skip
    write_deltalake(str(uri), table, mode="append")
    return str(uri)


def traffic(
    users: int, lists: int, seed: int, *, days: float = 3.0, rate: float = 0.2
) -> dict[str, Any]:
    """Users with tastes of their own, who come at random times and click at their own rate."""
    rng = np.random.default_rng(seed)
    own = np.clip(rng.beta(2, 2 / rate - 2, users), 0.001, 0.999)
    weight = rng.exponential(size=users) + 0.05
    who = rng.choice(users, lists, p=weight / weight.sum())
    when = START + np.sort(rng.integers(0, int(days * DAY), lists))
    click = (rng.random((lists, 4)) < own[who, None]).astype(float)
    return {
        "user": np.array([f"u{one}" for one in who]),
        "number": who,
        "time": when,
        "click": np.where(click > 0, 1.0, np.nan),
        "watch_time": np.where(click > 0, rng.lognormal(2, 1, click.shape), np.nan),
        "hide": np.where((click == 0) & (rng.random(click.shape) < 0.01), 1.0, np.nan),
    }
