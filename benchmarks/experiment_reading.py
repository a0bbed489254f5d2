"""What it costs to read an experiment's status from a large feedback table: time and memory.

The table is made here (random users, arms by ``contracts/assignment.py``, random clicks), day
by day; the status is read in a process of its own, so that its memory is its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import typer
from deltalake import write_deltalake
from rich.console import Console
from rich.progress import track

from contracts.assignment import assign_many
from contracts.experiment_metrics import Guardrail, Metric, StoppingRule
from contracts.experiments import Arm, Experiment
from contracts.features import FeatureGroup, FeatureSpec, FeedbackKind
from contracts.feedback_table import day_of, table_schema
from streaming.feedback_table.opening import create_or_open

app = typer.Typer(add_completion=False)
EPILOG = """Example:

python benchmarks/experiment_reading.py --slates 3000000 --users 300000
"""
DAY_MS = 86_400_000
START = 1_772_409_600_000  # 2026-03-02 00:00 UTC
ITEMS = 10
SPEC = FeatureSpec(
    user=FeatureGroup(),
    item=FeatureGroup(),
    list_size=ITEMS,
    feedback=(
        FeedbackKind(kind="click", type="binary"),
        FeedbackKind(kind="hide", type="binary"),
    ),
    utility="click",
)
EXPERIMENT = Experiment(
    name="large",
    salt="large",
    state="running",
    arms=(
        Arm(name="control", release="champion", weight=0.5),
        Arm(name="new", release="r0002", weight=0.5),
    ),
    primary=Metric(name="clicks", kind="click"),
    guardrails=(
        Guardrail(metric=Metric(name="hides", kind="hide", better="lower"), limit=0.1),
        Guardrail(metric="fallback_share", limit=0.01),
    ),
    stopping=StoppingRule(mde=0.01),
    started="2026-03-02T00:00:00+00:00",
)
READ = """
import json, re, sys, time
from benchmarks.experiment_reading import DAY_MS, EXPERIMENT, START
from deploy.analysis.experiment_status import read_status
def peak():  # of this program alone; getrusage would tell the parent's before the exec too
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
before = peak()
begin, cpu = time.perf_counter(), time.process_time()
status = read_status(EXPERIMENT, sys.argv[1], now=START + int(sys.argv[2]) * DAY_MS)
lift = status.lifts[0].relative
print(json.dumps({
    "wall s": time.perf_counter() - begin,
    "cpu s": time.process_time() - cpu,
    "MiB at the start": before,
    "MiB at most": peak(),
    "lists": sum(arm.lists for arm in status.arms),
    "units": sum(arm.units for arm in status.arms),
    "looks": len(lift.sequence) if lift else 0,
    "cuped": status.lifts[0].cuped.used,
}))
"""


@app.command(epilog=EPILOG)
def main(
    slates: Annotated[int, typer.Option(min=1000, help="In the experiment.")] = 1_000_000,
    users: Annotated[int, typer.Option(min=100, help="Who ask.")] = 100_000,
    days: Annotated[int, typer.Option(min=1, help="Of the experiment.")] = 7,
    past_days: Annotated[int, typer.Option(min=0, help="Before it, with as many a day.")] = 7,
) -> None:
    """Make the table, read the status, print time and memory."""
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        uri = str(Path(folder) / "table")
        create_or_open(uri, SPEC, {})
        begin = time.perf_counter()
        for day in track(range(-past_days, days), "Writing", console=console):
            write_deltalake(uri, _day(day, slates // days, users), mode="append")
        wrote = time.perf_counter() - begin
        done = subprocess.run(
            [sys.executable, "-c", READ, uri, str(days)],
            check=True,
            capture_output=True,
            text=True,
        )
        size = sum(file.stat().st_size for file in Path(uri).rglob("*.parquet"))
    figures = json.loads(done.stdout)
    console.print(f"Table: {slates:,} lists and as many a day before, {size / 2**20:.0f} MiB, "
                  f"written in {wrote:.0f} s")  # fmt: skip
    for name, value in figures.items():
        console.print(
            f"{name:18} {value:,.1f}" if isinstance(value, float) else f"{name:18} {value}"
        )


def _day(day: int, count: int, users: int) -> pa.Table:
    rng = np.random.default_rng([day + 1000, users])
    who = np.minimum((rng.pareto(1.2, count) * users / 20).astype(np.int64), users - 1)
    names, at = np.unique(who, return_inverse=True)
    texts = [f"user-{one}" for one in names]
    labels = np.array(["large/control", "large/new"])[assign_many(EXPERIMENT, texts)]
    offsets = np.arange(count + 1, dtype=np.int32) * ITEMS
    start = START + day * DAY_MS

    def feedback(rate: float) -> pa.Array:
        done = rng.random(count * ITEMS) < rate
        values = pa.array(np.ones(count * ITEMS), pa.float64(), mask=~done)
        return pa.ListArray.from_arrays(offsets, values)

    def same(value: object, kind: pa.DataType) -> pa.Array:
        return pa.repeat(pa.scalar(value, kind), count)

    ids = pa.array(np.char.add(f"d{day}-", np.arange(count).astype(str)))
    items = pa.repeat(pa.scalar("item"), count * ITEMS)
    made = {
        "request_id": ids,
        "user": pa.array(np.array(texts)[at]),
        "time": pa.array(start + np.sort(rng.integers(0, DAY_MS, count))),
        "surface": same("home", pa.string()),
        "arm": pa.array(labels[at] if day >= 0 else np.full(count, "")),
        "fallback": same("", pa.string()),
        "candidates": pa.ListArray.from_arrays(offsets, items),
        "exposed": pa.ListArray.from_arrays(
            offsets, pa.array(np.tile(np.arange(ITEMS, dtype=np.int32), count))
        ),
        "feedback__click": feedback(0.1),
        "feedback__hide": feedback(0.005),
        "day": same(day_of(start), pa.string()),
    }
    schema = table_schema(SPEC)
    arrays = [made.get(f.name, pa.nulls(count, f.type)).cast(f.type) for f in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


if __name__ == "__main__":
    app()
