"""Latency by arm through a real Prometheus that scrapes the client's own metrics."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, start_http_server

from contracts.experiment_metrics import Guardrail
from deploy.analysis.experiment_status import read_status
from deploy.analysis.prometheus import PrometheusError, arm_latency, ask
from deploy.child_process import free_port, start_child, stop_child
from handlers.rerank_metrics import RerankMetrics
from tests.analysis.tables import DAY, START, experiment, traffic, write

#: Of "try/new": 9,800 fast requests and 200 slow ones; of "try/control" none is slow.
FAST_S, SLOW_S = 0.004, 0.06


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prometheus that has seen the requests."""
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("prometheus is not installed (Debian: apt-get install prometheus)")
    folder = tmp_path_factory.mktemp("prometheus")
    registry = CollectorRegistry()
    metrics = RerankMetrics(registry)
    control, new = ("r0001", "try/control"), ("r0002", "other/x,try/new")
    newer = ("r0002", "try/newer")
    # Prometheus counts increases from a series' first scrape on, so that one comes first.
    for release, arm in (control, new, newer):
        metrics.count(release, arm, None, FAST_S)
    exporter, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 200ms}\n"
        "scrape_configs: [{job_name: clients, static_configs: "
        f"[{{targets: ['127.0.0.1:{exporter.server_port}']}}]}}]\n"
    )
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    child = start_child(
        [binary, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
         f"--web.listen-address=127.0.0.1:{port}"],
        folder / "log", {},
    )  # fmt: skip
    try:
        _wait(url, "sum(gref_rerank_latency_seconds_count) >= 3", folder / "log")
        for number in range(10_000):
            metrics.count(*control, None, FAST_S)
            metrics.count(*new, None, SLOW_S if number % 50 == 0 else FAST_S)
            metrics.count(*newer, None, SLOW_S)  # not to be taken for "new"
        _wait(url, "sum(gref_rerank_latency_seconds_count) >= 30003", folder / "log")
        yield url
    finally:
        stop_child(child)
        exporter.shutdown()
        thread.join(10)


def _wait(url: str, condition: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if ask(url, condition, time.time(), 5):
                return
        except PrometheusError:
            pass
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.05)


def test_latency_of_an_arm(prometheus: str) -> None:
    now = round(time.time() * 1000)
    control = arm_latency(prometheus, "try", "control", start=now - 60_000, end=now)
    new = arm_latency(prometheus, "try", "new", start=now - 60_000, end=now)
    # Prometheus extrapolates to the ends of the range, by the same factor for each bucket.
    assert new.requests >= 9999
    assert new.share_above(new.edge_ms(50)) == pytest.approx(0.02, abs=0.001)
    assert control.share_above(control.edge_ms(50)) == 0
    value = new.quantile_ms(0.99)
    assert value is not None
    assert 50 < value <= 100
    value = control.quantile_ms(0.99)
    assert value is not None
    assert value <= 4


def test_status_with_the_guardrail(prometheus: str, tmp_path: Path) -> None:
    columns = traffic(50, 300, seed=0)
    table = write(tmp_path / "t", columns)
    one = experiment(guardrails=(Guardrail(metric="latency_p99_ms", limit=30),))
    # The requests were made now, so the experiment must reach to now.
    status = read_status(one, table, prometheus=prometheus)
    assert [rail.state for rail in status.guardrails] == ["broken"]
    assert status.verdict == "roll back"
    assert status.arms[1].latency_p99_ms is not None
    assert status.arms[1].latency_p99_ms > 50
    before = read_status(one, table, prometheus=prometheus, now=START + DAY)
    assert before.guardrails[0].state == "unknown"
    assert "no gref_rerank_latency_seconds of arm try/new" in before.guardrails[0].why


def test_what_cannot_be_asked_is_unknown(prometheus: str, tmp_path: Path) -> None:
    now = round(time.time() * 1000)
    for url, words in (
        ("prometheus:9090", "no address of Prometheus"),
        ("file:///etc/passwd", "no address of Prometheus"),
        (f"http://127.0.0.1:{free_port()}", "cannot be asked"),
        (f"{prometheus}/nothing", "refused: 404"),
    ):
        with pytest.raises(PrometheusError, match=words):
            arm_latency(url, "try", "new", start=now - 60_000, end=now)
    with pytest.raises(PrometheusError, match="refused: 400"):
        ask(prometheus, "sum(", now / 1000, 5)
    with pytest.raises(PrometheusError, match="answered"):
        ask(prometheus, "1", now / 1000, 5)
    table = write(tmp_path / "t", traffic(50, 300, seed=0))
    one = experiment(guardrails=(Guardrail(metric="latency_p99_ms", limit=30),))
    status = read_status(one, table, prometheus=f"http://127.0.0.1:{free_port()}")
    assert "cannot be asked" in status.guardrails[0].why
