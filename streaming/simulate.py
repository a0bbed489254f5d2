"""Live traffic: simulated users ask a served release for lists, act on them, and it is all sent.

It stands for the world outside: a ranking server (the real client, over gRPC) and its users (a
simulated world, which knows the truth about every list). Its events are those of any ranking
server; what it prints of clicks is simulated.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, NoReturn, Optional

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from contracts.reading import ContractError, read_yaml, write_json
from handlers.rerank_result import RerankError
from streaming.traffic.faults import FaultSettings, Outbox
from streaming.traffic.kafka_sink import KafkaSink
from streaming.traffic.options import champion_of, parse_drift, parse_span
from streaming.traffic.pace import EventClock, Pace, now_ms
from streaming.traffic.poison import Poison
from streaming.traffic.ranking_server import Exploration, RankingServer
from streaming.traffic.session import Length, run_traffic
from streaming.traffic.tally import TrafficSummary
from streaming.traffic.users import Users
from training.sources.world import PRESETS, World, WorldSettings

EPILOG = """Examples:

python streaming/simulate.py --url 127.0.0.1:8001 --brokers 127.0.0.1:9092 --requests 2000

python streaming/simulate.py --releases releases --requests 4000 --span 6h --drift 0..1
  --explore-temperature 0.5

python streaming/simulate.py --seconds 60 --rate 50 --late 0.02 --duplicate 0.05 --malformed 0.01

python streaming/simulate.py --requests 3000 --span 2h --poison bots

python streaming/simulate.py --release r0002 --requests 500 --no-events

python streaming/simulate.py --routing routing.json --requests 4000
  --lose-users 0.02 --lose-arm homepage/treatment
"""

UNAVAILABLE, BAD_INPUT = 1, 2

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console, errors = Console(), Console(stderr=True)


@app.command(epilog=EPILOG)
def main(
    url: Annotated[
        str, typer.Option(envvar="GREF_URL", help="Triton's gRPC address.")
    ] = "127.0.0.1:8001",
    brokers: Annotated[
        str, typer.Option(envvar="GREF_BROKERS", help="Kafka's bootstrap servers.")
    ] = "127.0.0.1:9092",
    release: Annotated[
        Optional[str], typer.Option(help="Release to ask; without it the newest that is ready.")
    ] = None,
    releases: Annotated[
        Optional[Path], typer.Option(help="Folder of releases: ask its champion.")
    ] = None,
    routing: Annotated[
        Optional[Path],
        typer.Option(help="Routing file: it says whom each user's arm asks, and what is explored."),
    ] = None,
    world: Annotated[
        str, typer.Option(help="noisy, strong, fickle, or a YAML file of settings.")
    ] = "noisy",
    requests: Annotated[Optional[int], typer.Option(min=1, help="Stop after so many.")] = None,
    seconds: Annotated[Optional[float], typer.Option(min=0, help="Stop after so long.")] = None,
    rate: Annotated[
        Optional[float], typer.Option(help="Requests a second; as fast as it goes, if left.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Requests in one call of the client.")] = 1,
    deadline_ms: Annotated[float, typer.Option(min=1, help="Of a call.")] = 1000.0,
    explore_temperature: Annotated[
        float, typer.Option(min=0, help="Lists are drawn at it; 0 is greedy.")
    ] = 0.0,
    explore_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of requests that are explored.")
    ] = 1.0,
    drift: Annotated[
        Optional[str],
        typer.Option(help="FROM..TO, from 0 to 1: tastes move while the requests pass."),
    ] = None,
    span: Annotated[
        Optional[str],
        typer.Option(help="Event time that the requests take (90s, 30m, 6h); else the wall clock."),
    ] = None,
    ago: Annotated[str, typer.Option(help="How long before now the span ends.")] = "0s",
    late: Annotated[
        float, typer.Option(min=0, max=1, help="Share of feedback sent too late for its slate.")
    ] = 0.0,
    late_by: Annotated[
        str, typer.Option(help="How late; longer than join window and lateness together.")
    ] = "20m",
    duplicate: Annotated[
        float, typer.Option(min=0, max=1, help="Share of events sent twice.")
    ] = 0.0,
    malformed: Annotated[
        float, typer.Option(min=0, max=1, help="Messages that are no events, for each event.")
    ] = 0.0,
    out_of_order: Annotated[
        float, typer.Option(min=0, max=1, help="Share of events sent up to 30 s late.")
    ] = 0.0,
    lose_users: Annotated[
        float, typer.Option(min=0, max=1, help="Share of an arm's users whose exposures get lost.")
    ] = 0.0,
    lose_arm: Annotated[
        str, typer.Option(help="That arm: EXPERIMENT/ARM, as exposures have it.")
    ] = "",
    poison: Annotated[
        Optional[Poison], typer.Option(help="Feedback that is well-formed and untrue.")
    ] = None,
    events: Annotated[
        bool, typer.Option("--events/--no-events", help="Whether anything is sent to Kafka.")
    ] = True,
    spool: Annotated[Path, typer.Option(help="Folder of events that wait for the broker.")] = Path(
        ".local/spool"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same requests and users.")] = 0,
    out: Annotated[Optional[Path], typer.Option(help="JSON file of the summary.")] = None,
) -> None:
    """Send traffic, and print what was shown and what it was worth.

    Exit code 0: done; 1: the release or the broker cannot be used; 2: bad input.
    """
    try:
        base = World(PRESETS[world] if world in PRESETS else read_yaml(world, WorldSettings))
        length = Length(requests, seconds)
        moves = parse_drift(drift, length)
        clock = EventClock(requests, parse_span(span), now_ms() - (parse_span(ago) or 0))
        faults = FaultSettings(
            late=late,
            duplicate=duplicate,
            malformed=malformed,
            out_of_order=out_of_order,
            lost=lose_users,
            lost_arm=lose_arm,
            late_by_ms=parse_span(late_by) or 0,
            seed=seed,
        )
        exploration = Exploration(temperature=explore_temperature, share=explore_share)
        pace = Pace(rate)
        if routing and (release or releases or explore_temperature):
            raise ValueError(
                "--routing says whom to ask and what to explore; leave out --release, --releases "
                "and --explore-temperature"
            )
        name = champion_of(releases) if releases else release
        server = RankingServer(
            url, name, exploration, seed=seed, routing=routing, deadline_ms=deadline_ms
        )
    except (ContractError, ValueError, OSError) as error:
        _fail(error, BAD_INPUT)
    users = Users(base, seed=seed, drift=moves, poison=poison)
    with ExitStack() as stack:
        stack.callback(server.close)
        try:
            server.client.connect()
            sink = stack.enter_context(KafkaSink(brokers, spool)) if events else None
        except (RerankError, ContractError, OSError) as error:
            _fail(error, UNAVAILABLE)
        columns = TextColumn("users"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("users", total=requests)
            summary = run_traffic(
                users,
                server,
                Outbox(faults, clock.end_ms),
                sink,
                length,
                clock,
                pace,
                batch=batch,
                on_requests=lambda count: bar.update(task, completed=count),
            )
        trouble = sink.finish() if sink else ""
    show(summary, sends=events)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, summary)
    if trouble:
        _fail(trouble, UNAVAILABLE)


def show(summary: TrafficSummary, sends: bool) -> None:
    """Print a summary."""
    rows = Table.grid(padding=(0, 2))
    by = ", ".join(f"{count} by {name}" for name, count in summary.releases.items())
    rows.add_row("requests", f"{summary.requests} in {summary.seconds:.1f} s ({by})")
    reasons = ", ".join(f"{count} {why}" for why, count in summary.fallbacks.items())
    rows.add_row("fallbacks", f"{sum(summary.fallbacks.values())} {reasons}".strip())
    rows.add_row("latency", f"p50 {summary.p50_ms:.1f} ms, p99 {summary.p99_ms:.1f} ms")
    rows.add_row(
        "true clicks*",
        f"{summary.true_shown:.3f} a list, given order {summary.true_given:.3f} "
        f"({summary.gain:+.3f} +- {summary.gain_half:.3f})",
    )
    for arm, total in summary.arms.items():
        if arm:
            rows.add_row(
                f"  {arm}*",
                f"{total.shown:.3f} a list, given order {total.given:.3f} "
                f"({total.requests} requests of {total.users} users)",
            )
    acts = ", ".join(f"{count} {kind}" for kind, count in sorted(summary.feedback.items()))
    rows.add_row("users reported", acts or "nothing")
    sent = ", ".join(f"{count} {fate}" for fate, count in sorted(summary.sent.items()))
    if summary.lost:
        rows.add_row("lost", f"{summary.lost} exposures")
    rows.add_row("sent" if sends else "not sent", sent)
    console.print(rows)
    console.print("* simulated: exact expectations that only a simulated world can tell")


def _fail(error: object, code: int) -> NoReturn:
    errors.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(code)


if __name__ == "__main__":
    app()
