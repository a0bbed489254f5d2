"""Minutes to hours of traffic through real consumer members: does memory stay flat, is all there?

Sends as fast as the members read (within a bound of lag), samples memory, open slates, lag and
throughput, kills members where asked to, and at the end counts the rows of the table.
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from benchmarks.consumer_process import ConsumerProcess, Progress, wait_for
from benchmarks.feedback_traffic import FeedbackTraffic, Load, begin_of, streaming_spec
from benchmarks.process_usage import cpu_seconds, resident_mib
from benchmarks.soak_report import Sample, SoakResult, judge_memory, plot
from benchmarks.soak_traffic import Feeder
from contracts.reading import write_json, write_yaml
from deploy.local_broker import LocalBroker
from deploy.local_s3 import LocalS3

EPILOG = """Examples:

python benchmarks/soak.py

python benchmarks/soak.py --events 2000000 --warm-up 900000 --out soak.png --json soak.json

python benchmarks/soak.py --events 300000 --kill-every 30 --broker-kill-every 70
"""

GROUP = "soak"
PARTITIONS = 4
_SAMPLE_S = 1.0

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console()


@app.command(epilog=EPILOG)
def main(
    events: Annotated[int, typer.Option(min=10_000, help="Messages to send.")] = 200_000,
    members: Annotated[int, typer.Option(min=1, max=PARTITIONS, help="Consumer processes.")] = 2,
    candidates: Annotated[int, typer.Option(min=10, help="Of each exposure.")] = 30,
    open_slates: Annotated[int, typer.Option(min=100, help="At any time.")] = 10_000,
    max_lag: Annotated[int, typer.Option(min=1000, help="The sender waits above it.")] = 40_000,
    late: Annotated[float, typer.Option(min=0, max=1, help="Share with a late act.")] = 0.01,
    kill_every: Annotated[
        float, typer.Option(help="Seconds between kills of a member; rejoining takes 10 to 20.")
    ] = 0.0,
    broker_kill_every: Annotated[
        float, typer.Option(help="Seconds between kills of the broker; keeps it on a local S3.")
    ] = 0.0,
    warm_up: Annotated[
        int, typer.Option(help="Events before memory is judged; 0: twice the open window.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of the traffic and the kills.")] = 0,
    out: Annotated[Path, typer.Option(help="PNG of memory, open slates, lag, rate.")] = Path(
        "soak.png"
    ),
    json: Annotated[Optional[Path], typer.Option(help="JSON file of all samples.")] = None,
) -> None:
    """Soak the consumer and say whether its memory is flat.

    Flat: when twice the open window has been read, no member that is seen for long enough grows by
    more than a tenth of its memory for a million events (least squares). Each lane remembers
    50,000 closed requests, about 800,000 events of four lanes: --warm-up leaves that out.
    Exit code 3 where it is not, or a slate is missing or doubled.
    """
    load = Load(candidates=candidates, open_slates=open_slates, late=late)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = stack.enter_context(_broker(stack, folder, durable=broker_kill_every > 0))
        broker.create_topics(PARTITIONS)
        soak = Soak(folder, broker, load, events, seed, warm_up)
        stack.callback(soak.end)
        soak.run(members, max_lag, kill_every, broker_kill_every)
        result = soak.result()
    plot(soak.samples, out)
    _print(result, out)
    if json is not None:
        write_json(json, {"result": result, "samples": soak.samples})
    if not result.is_good:
        raise typer.Exit(3)


def _broker(stack: ExitStack, folder: Path, durable: bool) -> LocalBroker:
    if not durable:
        return LocalBroker(folder / "broker")
    s3 = stack.enter_context(LocalS3(folder / "s3"))
    s3.create_bucket("broker")
    return LocalBroker(folder / "broker", storage="s3://broker/", environment=s3.environment())


class Soak:
    """The members, what is done to them, and what is seen of them.

    Attributes:
        samples: one a second.
    """

    def __init__(
        self,
        folder: Path,
        broker: LocalBroker,
        load: Load,
        events: int,
        seed: int,
        warm_up: int,
    ) -> None:
        self.samples: list[Sample] = []
        self._folder, self._broker, self._load, self._events = folder, broker, load, events
        self._random = random.Random(seed)
        self._table = folder / "table"
        self._traffic = FeedbackTraffic(load, begin_of(load, events), seed)
        self._feeder = Feeder(broker.address, self._traffic, events, PARTITIONS)
        self._progress = Progress(self._table, GROUP, PARTITIONS)
        self._members: list[ConsumerProcess] = []
        self._started = 0
        self._kills = self._broker_kills = 0
        self._warm_up = warm_up or int(2 * load.open_slates * (1 + load.acts))
        self._cpu = 0.0
        self._begun = time.monotonic()
        write_yaml(folder / "features.yaml", streaming_spec(load.list_size))

    def run(self, members: int, max_lag: int, kill_every: float, broker_kill_every: float) -> None:
        """Feed until everything is sent and read."""
        for _ in range(members):
            self._start()
        for member in self._members:
            wait_for(member.is_ready, "a member joins the group", 180)
        self._begun = time.monotonic()
        next_kill, next_broker_kill = self._begun + kill_every, self._begun + broker_kill_every
        feeding = threading.Thread(target=self._feeder.run, daemon=True)
        feeding.start()
        with Bar(
            "{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            console=console, transient=True,
        ) as bar:  # fmt: skip
            task = bar.add_task("read and committed", total=self._events)
            while feeding.is_alive() or not self._progress.has_read(self._feeder.ends()):
                read = self._sample()
                self._feeder.allow(read + max_lag)
                bar.update(task, completed=read, total=max(self._feeder.sent, self._events))
                now = time.monotonic()
                if kill_every and now > next_kill and feeding.is_alive():
                    next_kill = now + kill_every
                    self._kill_member()
                if broker_kill_every and now > next_broker_kill and feeding.is_alive():
                    next_broker_kill = now + broker_kill_every
                    self._broker.kill()
                    self._broker.start()
                    self._broker_kills += 1
                time.sleep(_SAMPLE_S)
        self._sample()
        if self._feeder.error is not None:
            raise self._feeder.error

    def result(self) -> SoakResult:
        """Stop the members, and count."""
        seconds = time.monotonic() - self._begun
        self._cpu += sum(cpu_seconds(member.pid) for member in self._members)
        codes = [member.stop() for member in self._members]
        rows, twice = self._progress.rows()
        return SoakResult(
            events=self._feeder.sent,
            seconds=seconds,
            cpu_seconds=self._cpu,
            slates=self._traffic.slates,
            rows=rows,
            rows_twice=twice,
            kills=self._kills,
            broker_kills=self._broker_kills,
            exit_codes=codes,
            memory=judge_memory(self.samples, self._warm_up),
        )

    def end(self) -> None:
        """Leave nothing running."""
        self._feeder.close()
        for member in self._members:
            member.kill()

    def _start(self) -> None:
        self._started += 1
        load = self._load
        self._members.append(
            ConsumerProcess(
                self._folder / f"member-{self._started}.log",
                *("--brokers", self._broker.address, "--table", self._table),
                *("--features", self._folder / "features.yaml", "--group", GROUP),
                *("--join-window", f"{load.join_window_ms}ms"),
                *("--lateness", f"{load.lateness_ms}ms", "--commit-interval", "2s"),
                *("--idle-after", "1s"),
                *("--session-timeout", "6s"),  # a dead member's lanes are soon another's
            )
        )

    def _kill_member(self) -> None:
        member = self._members.pop(self._random.randrange(len(self._members)))
        self._cpu += cpu_seconds(member.pid)
        member.kill()
        self._kills += 1
        self._start()

    def _sample(self) -> int:
        read = sum(self._progress.read().values())
        self.samples.append(
            Sample(
                seconds=time.monotonic() - self._begun,
                sent=self._feeder.sent,
                read=read,
                open_slates=sum(m.metric("gref_consumer_open_slates") for m in self._members),
                rss_mib={str(member.pid): resident_mib(member.pid) for member in self._members},
            )
        )
        return read


def _print(result: SoakResult, out: Path) -> None:
    console.print(
        f"{result.events:,} events in {result.seconds:.0f} s: {result.events / result.seconds:,.0f}"
        f" a second, {result.events / result.cpu_seconds:,.0f} a CPU-second of the members"
    )
    console.print(
        f"{result.rows:,} rows for {result.slates:,} slates, {result.rows_twice} twice; "
        f"kills: {result.kills} of members, {result.broker_kills} of the broker; "
        f"exit codes {result.exit_codes}"
    )
    for one in result.memory:
        console.print(
            f"member {one.pid}: {one.median_mib:.0f} MiB (median), {one.slope_mib:+.1f} MiB for a "
            f"million events over {one.events:,} events: {'flat' if one.is_flat else 'not flat'}"
        )
    console.print(f"{'good' if result.is_good else '[red]not good[/red]'}; plot: {out}")


if __name__ == "__main__":
    app()
