"""Every query of the dashboard and every series of a rule, asked of a stack that runs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import pytest

from deploy.monitoring.dashboard import FILE
from tests.monitoring.programs import RULES, rules_of, selectors
from tests.monitoring.stack import WAIT_S, Prometheus, running

pytestmark = pytest.mark.timeout(300)

#: What a machine without a GPU cannot have: Triton takes these from NVIDIA's DCGM.
ONLY_WITH_GPU = {"nv_gpu_utilization", "nv_gpu_memory_used_bytes"}
JOBS = {"triton", "consumer", "ranking", "textfiles", "prometheus"}


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with running(tmp_path_factory.mktemp("monitoring")) as prometheus:
        # Scrapes of everything, slates that were closed and written, and a release that is away.
        prometheus.wait_for(f"count(up == 1) == {len(JOBS)}")
        prometheus.wait_for("sum(gref_consumer_rows_total) > 10")
        prometheus.wait_for("sum(gref_client_rerouted_total) > 3")
        yield prometheus


def queries() -> dict[str, str]:
    """Every query of the dashboard by panel and number."""
    found = {}
    for panel in json.loads(FILE.read_text())["panels"]:
        for target in panel.get("targets", ()):
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    return found


def test_every_job_is_scraped(prometheus: Prometheus) -> None:
    assert {one["metric"]["job"] for one in prometheus.series("up == 1")} == JOBS


def test_every_query_of_the_dashboard_has_series(prometheus: Prometheus) -> None:
    asked = set(queries().values())
    assert len(asked) > 50
    ready = {
        expr.replace("$__rate_interval", "30s").replace("$experiment", ".*"): expr
        for expr in asked - ONLY_WITH_GPU
    }
    assert {ready[expr] for expr in prometheus.missing(ready)} == set()
    # What is excused is asked for, and is indeed not here.
    assert asked >= ONLY_WITH_GPU
    assert prometheus.missing(ONLY_WITH_GPU, wait_s=0) == ONLY_WITH_GPU


def test_the_menu_of_experiments_has_entries(prometheus: Prometheus) -> None:
    (menu,) = json.loads(FILE.read_text())["templating"]["list"]
    name, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", menu["query"]).groups()  # type: ignore[union-attr]
    entries = {one["metric"][label] for one in prometheus.series(name)}
    assert entries == {"fresh-feed", "three-arms"}


def test_every_series_of_a_rule_is_there(prometheus: Prometheus) -> None:
    asked: set[str] = set()
    for path in RULES:
        for rule in rules_of(path):
            found = selectors(rule["expr"])
            assert found, rule
            asked |= found
    assert len(asked) > 40
    assert prometheus.missing(asked) == set()


def test_every_rule_is_evaluated_without_an_error(prometheus: Prometheus) -> None:
    expected = {rule.get("alert") or rule["record"] for path in RULES for rule in rules_of(path)}
    give_up = time.monotonic() + WAIT_S
    while True:
        groups = prometheus.get("/api/v1/rules")["groups"]
        rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
        if all(rule["health"] != "unknown" for rule in rules.values()):
            break
        assert time.monotonic() < give_up
        time.sleep(0.2)
    assert set(rules) == expected
    assert {name: rule for name, rule in rules.items() if rule["health"] != "ok"} == {}


def test_the_alerts_that_this_stack_deserves_are_raised(prometheus: Prometheus) -> None:
    """Its experiment breaks a guardrail and its sample ratio; nothing is wrong with its Triton."""
    firing = 'ALERTS{alertstate="firing",alertname="%s"}'
    for name in ("GrefSampleRatioMismatch", "GrefGuardrailBroken"):
        (alert,) = prometheus.wait_for(firing % name)
        assert alert["metric"]["experiment"] == "three-arms"
        assert alert["metric"]["severity"] == "page"
    for name in ("GrefTritonDown", "GrefTritonAbsent", "GrefReleaseMismatch", "GrefEventsLost"):
        assert prometheus.series(f'ALERTS{{alertname="{name}"}}') == []
    # A fifth of the requests falls back, and an arm's release is not loaded.
    for name in ("GrefFallbackShare", "GrefRerouted"):
        assert prometheus.wait_for(f'ALERTS{{alertname="{name}",alertstate="pending"}}')
