"""A small running stack, watched by a real Prometheus with the configuration that is shipped.

Triton serves a release; a ranking server asks it through the routed client and sends exposures and
feedback to a broker; a consumer writes the feedback table; a refresh and a look at an experiment
have left their textfiles to node_exporter.
"""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import yaml
from prometheus_client import CollectorRegistry, start_http_server

from contracts.events import FeedbackEvent
from contracts.reading import canonical_json, write_yaml
from deploy.local_broker import LocalBroker
from deploy.monitoring.experiment_metrics import write_experiment_metrics
from handlers.rerank_metrics import RerankMetrics
from handlers.routed_client import RoutedClient
from handlers.routing_metrics import RoutingMetrics
from streaming.producer import EventProducer
from streaming.producer_metrics import ProducerMetrics
from tests.monitoring.programs import MONITORING, RULES, program
from tests.monitoring.test_batch_metrics import SUMMARY, releases
from tests.report_page import statuses
from tests.serving.conftest import DEADLINE_MS, local_triton
from tests.serving.routed import split
from tests.serving.toy_engines import SPEC, toy_request, write_toy_engines
from tests.streaming.consume_process import Consumer
from training.refreshing.run_metrics import RunMetrics
from training.release.publishing import publish

WAIT_S = 90.0


class Prometheus:
    """Its HTTP API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}{path}?{query}", timeout=10) as answer:  # noqa: S310
            return json.load(answer)["data"]

    def series(self, expr: str) -> list[dict[str, Any]]:
        """The series that an expression gives at this moment."""
        try:
            data = self.get("/api/v1/query", query=expr)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{expr}: {error.read().decode()}") from error
        found = data["result"]
        return found if isinstance(found, list) else [found]

    def wait_for(self, expr: str) -> list[dict[str, Any]]:
        """Its series, as soon as there are any."""
        give_up = time.monotonic() + WAIT_S
        while not (found := self.series(expr)):
            assert time.monotonic() < give_up, f"{expr}: no series after {WAIT_S:g} s"
            time.sleep(0.2)
        return found

    def missing(self, exprs: Collection[str], wait_s: float = 30.0) -> set[str]:
        """Those that have no series; only after a while, for rules take their turns."""
        give_up = time.monotonic() + wait_s
        left = set(exprs)
        while True:
            left = {expr for expr in left if not self.series(expr)}
            if not left or time.monotonic() > give_up:
                return left
            time.sleep(0.5)


@contextmanager
def running(folder: Path) -> Iterator[Prometheus]:
    """The stack, with traffic, until the end of the block."""
    with ExitStack() as stack:
        textfiles = folder / "textfiles"
        textfiles.mkdir()
        _leave_textfiles(textfiles, folder)
        collector = stack.enter_context(_collector(textfiles))
        triton = stack.enter_context(local_triton(folder / "triton"))
        triton.load(publish(write_toy_engines(folder / "engines"), folder / "releases"))
        broker = stack.enter_context(LocalBroker(folder / "broker"))
        broker.create_topics()
        (folder / "consumer").mkdir()
        write_yaml(folder / "consumer" / "features.yaml", SPEC)
        consumer = Consumer(folder / "consumer", broker.address, str(folder / "table"))
        stack.callback(consumer.kill)
        registry = CollectorRegistry()
        server, thread = start_http_server(0, "127.0.0.1", registry)
        stack.callback(thread.join)
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        stack.enter_context(_traffic(folder, triton.state().grpc_url, broker.address, registry))
        consumer.wait_ready()
        targets = {
            "triton": triton.state().ports.metrics,
            "consumer": consumer.ready["metrics_port"],
            "ranking": server.server_port,
            "textfiles": collector,
        }
        yield stack.enter_context(_prometheus(folder, targets))


def _leave_textfiles(textfiles: Path, folder: Path) -> None:
    store = releases(folder / "champion")
    with RunMetrics(textfiles / "refresh.prom", store) as run:
        run.summary = SUMMARY
    for status in (statuses.winning(), statuses.broken()):
        write_experiment_metrics(textfiles / f"{status.name}.prom", status)


@contextmanager
def _traffic(folder: Path, url: str, broker: str, registry: CollectorRegistry) -> Iterator[None]:
    """Requests and feedback, ten times a second: good ones, refused ones, and ones whose release
    is not there; and events that the consumer refuses.
    """
    routing = folder / "routing.json"
    routing.write_bytes(canonical_json(split(0.5)))
    over = threading.Event()
    with (
        EventProducer(broker, folder / "spool", metrics=ProducerMetrics(registry)) as producer,
        RoutedClient(
            url,
            routing,
            deadline_ms=DEADLINE_MS,
            metrics=RerankMetrics(registry),
            routing_metrics=RoutingMetrics(registry),
            exposures=producer.send,
        ) as client,
    ):

        def send() -> None:
            number = 0
            while not over.wait(0.1):
                number += 1
                request = msgspec.structs.replace(
                    toy_request(number % 50), request_id=f"q{number}", user=f"user-{number % 40}"
                )
                if number % 5 == 0:
                    request = msgspec.structs.replace(request, candidates=())
                result = client.rerank(request)
                for item in result.items[:1]:
                    producer.send(_act(request.request_id, item, number))

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _act(request_id: str, item: str, number: int) -> FeedbackEvent:
    return FeedbackEvent(
        request_id=request_id,
        time=int(time.time() * 1000),
        event_id=f"e{number}",
        item=item,
        kind="click" if number % 3 else "no_such_kind",
        value=1.0,
    )


@contextmanager
def _collector(textfiles: Path) -> Iterator[int]:
    """node_exporter with its textfile collector alone, as compose.yaml starts it; its port."""
    port = _free_port()
    command = [program("prometheus-node-exporter", "node_exporter")]
    command += ["--collector.disable-defaults", "--collector.textfile"]
    command += [f"--collector.textfile.directory={textfiles}"]
    command += [f"--web.listen-address=127.0.0.1:{port}"]
    with _process(command, textfiles.parent / "collector.log", f"http://127.0.0.1:{port}/metrics"):
        yield port


@contextmanager
def _prometheus(folder: Path, targets: dict[str, int]) -> Iterator[Prometheus]:
    """Prometheus with the shipped configuration; only the targets and the pace are the test's."""
    port = _free_port()
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(path) for path in RULES]
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    for name, target in {**targets, "prometheus": port}.items():
        static = [{"targets": [f"127.0.0.1:{target}"]}]
        if "file_sd_configs" in jobs[name]:
            (folder / "targets").mkdir()
            (folder / "targets" / "ranking.yaml").write_text(yaml.safe_dump(static))
        else:
            jobs[name]["static_configs"] = static
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    url = f"http://127.0.0.1:{port}"
    command = [program("prometheus"), f"--config.file={file}"]
    command += [f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}"]
    with _process(command, folder / "prometheus.log", f"{url}/-/ready"):
        yield Prometheus(url)


@contextmanager
def _process(command: list[str], log: Path, ready: str) -> Iterator[None]:
    """A program until the end of the block, entered when an address answers."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        give_up = time.monotonic() + WAIT_S
        while True:
            assert process.poll() is None, log.read_text(errors="replace")
            try:
                with urllib.request.urlopen(ready, timeout=5):  # noqa: S310
                    break
            except (urllib.error.URLError, OSError):
                assert time.monotonic() < give_up, f"{command[0]} is not ready: {log.read_text()}"
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(30)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
