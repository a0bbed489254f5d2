"""Feedback that is never lost: Kafka events to slates in a Delta table.

    python streaming/consume.py --brokers localhost:9092 --table feedback/ --features features.yaml

Start as many members as there are partitions, at most; they share the lanes. docs/streaming.md
says what is promised, and what to do when something is down.
"""

from __future__ import annotations

import gc
import json
import logging
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
import yaml
from rich.console import Console

from contracts.events import DEAD_LETTERS, EXPOSURES, FEEDBACK
from contracts.features import FeatureSpec
from contracts.reading import ContractError, read_yaml
from streaming.consumer.dead_letter_sender import NotSent
from streaming.consumer.durations import duration_ms
from streaming.consumer.health import Health, HealthServer
from streaming.consumer.member import GaveUp, Member
from streaming.consumer.metrics import ConsumerMetrics
from streaming.consumer.settings import ConsumerSettings
from streaming.consumer.table_sink import CommitFailed, TableSink
from streaming.feedback_table.opening import storage_options_of

EPILOG = """Examples:

python streaming/consume.py --brokers localhost:9092 --table feedback/ --features features.yaml

AWS_REGION=eu-west-1 python streaming/consume.py --brokers kafka:9092 --table s3://bucket/feedback
--features features.yaml --join-window 30m --metrics-port 9100

Exit code 0: told to stop (SIGTERM, SIGINT), all committed; 2: bad input; 1: the table or the
broker was down for too long; nothing is lost, start again.
"""

console = Console(stderr=True)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog=EPILOG)
def main(
    brokers: Annotated[str, typer.Option(help="HOST:PORT, several with commas.")],
    table: Annotated[str, typer.Option(help="Folder or s3://BUCKET/PATH; made if not there.")],
    features: Annotated[Path, typer.Option(help="Feature spec (YAML) of the table.")],
    group: Annotated[str, typer.Option(help="Consumer group; positions belong to it.")] = "gref",
    join_window: Annotated[
        str, typer.Option(help="How long after an exposure feedback counts.")
    ] = "10m",
    lateness: Annotated[
        str, typer.Option(help="How far events may come out of order, differing clocks included.")
    ] = "1m",
    idle_after: Annotated[
        str, typer.Option(help="How long a topic is at its end before nobody waits for it.")
    ] = "30s",
    max_skew: Annotated[
        str, typer.Option(help="How far ahead of the wall clock an event may be.")
    ] = "5m",
    commit_interval: Annotated[str, typer.Option(help="Longest time between commits.")] = "10s",
    commit_rows: Annotated[int, typer.Option(min=1, help="Closed slates for a commit.")] = 20_000,
    memory: Annotated[
        int, typer.Option(min=1, metavar="MIB", help="Open slates and waiting feedback.")
    ] = 1024,
    metrics_port: Annotated[
        int, typer.Option(min=0, max=65535, help="/metrics, /healthz, /readyz; 0: any free port.")
    ] = 9100,
    storage_option: Annotated[
        Optional[list[str]],
        typer.Option(metavar="KEY=VALUE", help="Of the object store; repeatable."),
    ] = None,
    kafka_config: Annotated[
        Optional[Path],
        typer.Option(help="YAML of kafka-python options (security_protocol, sasl_...)."),
    ] = None,
    session_timeout: Annotated[
        str, typer.Option(help="Silence after which a member's lanes go to others.")
    ] = "20s",
    give_up: Annotated[
        str, typer.Option(help="How long a commit is tried again before exit 1.")
    ] = "10m",
    broker_timeout: Annotated[
        str, typer.Option(help="How long to wait for a broker at the start.")
    ] = "1m",
    exposures_topic: Annotated[str, typer.Option(help="Topic of exposures.")] = EXPOSURES,
    feedback_topic: Annotated[str, typer.Option(help="Topic of feedback.")] = FEEDBACK,
    dead_letter_topic: Annotated[str, typer.Option(help="Topic of dead letters.")] = DEAD_LETTERS,
) -> None:
    """Join exposures with their feedback and append closed slates to the feedback table.

    Prints one line of JSON on standard output when it is ready:
    {"ready": true, "metrics_port": 9100, "lanes": [0, 1, 2, 3]}.
    """
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("kafka").setLevel(logging.ERROR)
    # Events come and go by the hundred thousand and hold no cycles: looking for some after every
    # 700 of them, and through all that is open, would be a good part of the work.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        settings = ConsumerSettings(
            brokers=tuple(one.strip() for one in brokers.split(",") if one.strip()),
            group=group,
            exposures=exposures_topic,
            feedback=feedback_topic,
            dead_letters=dead_letter_topic,
            join_window=duration_ms(join_window, "--join-window"),
            lateness=duration_ms(lateness, "--lateness"),
            idle_after=duration_ms(idle_after, "--idle-after"),
            max_skew=duration_ms(max_skew, "--max-skew"),
            commit_interval=duration_ms(commit_interval, "--commit-interval"),
            commit_rows=commit_rows,
            memory_bytes=memory << 20,
            give_up=duration_ms(give_up, "--give-up"),
            broker_timeout=duration_ms(broker_timeout, "--broker-timeout"),
            session_timeout=duration_ms(session_timeout, "--session-timeout"),
            kafka=_kafka_options(kafka_config),
        )
        spec = read_yaml(features, FeatureSpec)
        sink = TableSink(table, spec, group, storage_options_of(storage_option or []))
        _run(settings, sink, metrics_port, stop)
    except (ContractError, OSError) as error:
        _say(f"error: {error}", "red")
        raise typer.Exit(2) from error
    except (GaveUp, CommitFailed, NotSent) as error:
        _say(f"gave up: {error}. Nothing is lost: a restart goes on from the table.", "red")
        raise typer.Exit(1) from error


def _run(
    settings: ConsumerSettings, sink: TableSink, metrics_port: int, stop: threading.Event
) -> None:
    metrics, health = ConsumerMetrics(), Health()
    server = HealthServer(health, metrics.registry, metrics_port)

    def ready(lanes: list[int]) -> None:
        line = {"ready": True, "metrics_port": server.port, "lanes": lanes}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    try:
        Member(settings, sink, metrics, health, stop).run(ready)
    finally:
        server.close()


def _kafka_options(path: Path | None) -> dict[str, Any]:
    """Options for kafka-python's consumer and producer alike; those of the join are not theirs."""
    if path is None:
        return {}
    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ContractError(f"{path}: cannot be read: {error}") from error
    allowed = ("security_protocol", "ssl_", "sasl_", "client_id", "client_rack")
    if not isinstance(options, dict) or not all(
        isinstance(name, str) and name.startswith(allowed) for name in options
    ):
        raise ContractError(f"{path}: allowed: options that begin with {', '.join(allowed)}")
    return options


def _say(text: str, style: str) -> None:
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    app()
