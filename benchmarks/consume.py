"""What the consumer costs beside the floor: a kafka-python poll loop that does nothing.

All read the same topics of the same broker in the same run, each in one process. The ratio of
messages per CPU-second carries over to other machines; the rates are this machine's. There are two
floors: kafka-python alone, and kafka-python with checksums in C, which the consumer uses too.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated, Optional

import typer
from kafka import KafkaProducer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.bare_poll import Ends, Rate, bare_poll
from benchmarks.consumer_process import ConsumerProcess, Progress, wait_for
from benchmarks.feedback_traffic import FeedbackTraffic, Load, begin_of, streaming_spec
from benchmarks.process_usage import cpu_seconds
from contracts.reading import write_json, write_yaml
from deploy.local_broker import LocalBroker

EPILOG = """Examples:

python benchmarks/consume.py

python benchmarks/consume.py --events 200000 --rounds 5 --out consume.json

python benchmarks/consume.py --candidates 100 --acts 10
"""

BARE, BARE_C, CONSUMER = "kafka-python", "kafka-python with crc32c", "the consumer"
#: The consumer must reach this share of the messages per CPU-second of a bare loop that has what
#: it has itself (BARE_C): the stricter of the two, and the only one with like conditions.
GOAL = 0.5
GROUP = "benchmark"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console()


@app.command(epilog=EPILOG)
def main(
    events: Annotated[int, typer.Option(min=1000, help="Messages of both topics.")] = 60_000,
    candidates: Annotated[int, typer.Option(min=10, help="Of each exposure.")] = 30,
    acts: Annotated[float, typer.Option(min=0.1, help="Feedback events of a slate.")] = 3.0,
    open_slates: Annotated[int, typer.Option(min=1, help="At any time.")] = 5_000,
    partitions: Annotated[int, typer.Option(min=1, max=64, help="Of either topic.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="Floors and consumer, in turn.")] = 3,
    out: Annotated[Optional[Path], typer.Option(help="JSON file of all rounds.")] = None,
) -> None:
    """Print messages per second and per CPU-second: decode, join and write against bare reading.

    Exit code 3 where the consumer stays below half of the bare loop with crc32c per CPU-second.
    """
    load = Load(candidates=candidates, acts=acts, open_slates=open_slates)
    rounds_of: dict[str, list[Rate]] = {BARE: [], BARE_C: [], CONSUMER: []}
    with tempfile.TemporaryDirectory() as name, LocalBroker(Path(name) / "broker") as broker:
        folder = Path(name)
        broker.create_topics(partitions)
        with console.status("sending events"):
            ends, slates, size = _fill(broker.address, load, events, partitions)
        for number in track(range(rounds), "measuring", transient=True):
            rounds_of[BARE].append(bare_poll(broker.address, ends, crc32c=False))
            rounds_of[BARE_C].append(bare_poll(broker.address, ends, crc32c=True))
            part = folder / str(number)
            rounds_of[CONSUMER].append(_consume(broker.address, part, load, ends, slates))
    shares = {
        name: statistics.median(
            consumer.per_cpu_second / floor.per_cpu_second
            for consumer, floor in zip(rounds_of[CONSUMER], rates)
        )
        for name, rates in rounds_of.items()
    }
    _print(rounds_of, shares, f"{sum(ends.values()):,} messages, {size / 1e6:.0f} MB")
    if out is not None:
        sizes = {"messages": sum(ends.values()), "bytes": size, "slates": slates}
        write_json(out, {**sizes, "rounds": rounds_of, "consumer_share_of": shares})
    if shares[BARE_C] < GOAL:
        console.print(f"[red]below the goal: {GOAL} of {BARE_C}[/red]")
        raise typer.Exit(3)


def _fill(address: str, load: Load, events: int, partitions: int) -> tuple[Ends, int, int]:
    """Send the traffic; returns the ends of the partitions, slates that will close, and bytes."""
    traffic = FeedbackTraffic(load, begin_ms=begin_of(load, events))
    producer = KafkaProducer(bootstrap_servers=address, linger_ms=20, batch_size=1 << 18)
    sent, size = [], 0
    for topic, key, value in traffic.records(events):
        sent.append(producer.send(topic, key=key, value=value))
        size += len(value)
    for partition, (topic, key, value) in traffic.rest(partitions):
        where = None if partition < 0 else partition
        sent.append(producer.send(topic, key=key, value=value, partition=where))
        size += len(value)
    ends: dict[tuple[str, int], int] = {}
    for future in sent:
        meta = future.get(timeout=60)
        place = (meta.topic, meta.partition)
        ends[place] = max(ends.get(place, 0), meta.offset + 1)
    producer.close()
    return ends, traffic.slates, size


def _consume(address: str, folder: Path, load: Load, ends: Ends, slates: int) -> Rate:
    """Run the consumer from the first message until all is committed; joining the group is not
    counted."""
    folder.mkdir()
    write_yaml(folder / "features.yaml", streaming_spec(load.list_size))
    table = folder / "table"
    consumer = ConsumerProcess(
        folder / "consumer.log",
        *("--brokers", address, "--table", table, "--features", folder / "features.yaml"),
        *("--group", f"{GROUP}-{folder.name}", "--join-window", f"{load.join_window_ms}ms"),
        *("--lateness", f"{load.lateness_ms}ms", "--commit-interval", "2s"),
        *("--idle-after", "1s"),
    )
    try:
        wait_for(consumer.is_ready, "the consumer joins the group", 120)
        wall, cpu = time.perf_counter(), cpu_seconds(consumer.pid)
        progress = Progress(table, f"{GROUP}-{folder.name}", len(ends) // 2)
        wait_for(lambda: progress.has_read(ends), "the consumer reads to the end", 900)
        rate = Rate(
            messages=sum(ends.values()),
            wall_s=time.perf_counter() - wall,
            cpu_s=cpu_seconds(consumer.pid) - cpu,
        )
        code = consumer.stop()
    finally:
        consumer.kill()
    rows, twice = progress.rows()
    assert (code, rows, twice) == (0, slates, 0), f"exit {code}, {rows} rows for {slates} slates"
    return rate


def _print(rounds_of: dict[str, list[Rate]], shares: dict[str, float], size: str) -> None:
    table = Table(title=f"{size}: messages per second, medians of {len(rounds_of[CONSUMER])}")
    for name in ("", "on the wall", "of CPU", "consumer's share per CPU-second"):
        table.add_column(name, justify="right" if name else "left")
    for name, rates in rounds_of.items():
        wall = statistics.median(rate.per_second for rate in rates)
        cpu = statistics.median(rate.per_cpu_second for rate in rates)
        table.add_row(name, f"{wall:,.0f}", f"{cpu:,.0f}", f"{shares[name]:.2f}")
    console.print(table)


if __name__ == "__main__":
    app()
