"""The autoscalers' metrics: the adapter's rules make them, and Prometheus gets the sums right."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from prometheus_client import generate_latest

from deploy.cluster.rendering import KUBERNETES, Object
from streaming.consumer.metrics import ConsumerMetrics
from tests.deploy.conftest import find

RULES = yaml.safe_load((KUBERNETES / "prometheus-adapter.yaml").read_text())
Rendered = Callable[[str], list[Object]]

#: Two Tritons for ten minutes. Pod a: 100 requests a second, of which each waits 3 ms for the
#: encoder and 1 ms for the decoder (4 ms); another model's series do not count. Pod b has no
#: request: its queue time is 0, and no division by nothing. By second.
SERIES = {
    'nv_inference_queue_duration_us{model="gref_r0001_encoder",namespace="gref",pod="a"}': 300000,
    'nv_inference_queue_duration_us{model="gref_r0001_decoder",namespace="gref",pod="a"}': 100000,
    'nv_inference_queue_duration_us{model="other",namespace="gref",pod="a"}': 99000000,
    'nv_inference_request_success{model="gref_r0001_encoder",namespace="gref",pod="a"}': 100,
    'nv_inference_request_success{model="gref_r0001_decoder",namespace="gref",pod="a"}': 100,
    'nv_inference_request_success{model="other",namespace="gref",pod="a"}': 1,
    'nv_inference_queue_duration_us{model="gref_r0001_encoder",namespace="gref",pod="b"}': 0,
    'nv_inference_request_success{model="gref_r0001_decoder",namespace="gref",pod="b"}': 0,
}
#: Two members, and a partition that both of them report.
LAGS = {
    'gref_consumer_lag{topic="gref.exposures",partition="0",namespace="gref",pod="x"}': 1000,
    'gref_consumer_lag{topic="gref.exposures",partition="0",namespace="gref",pod="y"}': 900,
    'gref_consumer_lag{topic="gref.feedback",partition="0",namespace="gref",pod="x"}': 30,
    'gref_consumer_lag{topic="gref.exposures",partition="1",namespace="gref",pod="y"}': 5,
}


def query(rule: Object, group: str) -> str:
    """The adapter's template, filled in as the adapter does for namespace gref."""
    text = str(rule["metricsQuery"]).replace("<<.LabelMatchers>>", 'namespace="gref"')
    return text.replace("<<.GroupBy>>", group)


def made() -> dict[str, Object]:
    return {rule["name"]["as"]: rule for rule in (*RULES["rules"], *RULES["externalRules"])}


@pytest.mark.parametrize("name", ["production-gpu", "torchserve"])
def test_every_metric_that_is_asked_for_is_made(rendered: Rendered, name: str) -> None:
    for one in rendered(name):
        if one["kind"] != "HorizontalPodAutoscaler":
            continue
        for metric in one["spec"]["metrics"]:
            kind = metric["type"]
            if kind == "Resource":
                continue
            asked = metric[kind.lower()]["metric"]["name"]
            rules = RULES["rules" if kind == "Pods" else "externalRules"]
            assert asked in [rule["name"]["as"] for rule in rules], asked


def test_the_consumer_exposes_what_is_summed() -> None:
    metrics = ConsumerMetrics()
    metrics.lag.labels("gref.exposures", "0").set(7)
    shown = generate_latest(metrics.registry).decode()
    assert re.search(r'^gref_consumer_lag{partition="0",topic="gref.exposures"} 7', shown, re.M)


def test_a_consumer_beyond_the_partitions_would_stand_by(rendered: Rendered) -> None:
    """maxReplicas is the partitions' number that docs and compose create the topics with."""
    scaler = find(rendered("production-gpu"), "HorizontalPodAutoscaler", "gref-consumer")
    compose = yaml.safe_load((KUBERNETES.parent / "compose.yaml").read_text())
    partitions = compose["services"]["kafka-topics"]["environment"]["PARTITIONS"]
    assert scaler["spec"]["maxReplicas"] == int(partitions)


def test_alerts_for_the_operator_are_rules_that_prometheus_takes(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "deploy/manifests.py", "alerts"],
        cwd=KUBERNETES.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made = yaml.safe_load(done.stdout)
    assert made["kind"] == "PrometheusRule"
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(made["spec"]))
    checked = subprocess.run(
        [shutil.which("promtool") or "promtool", "check", "rules", str(tmp_path / "rules.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    folder = KUBERNETES.parent / "monitoring" / "rules"
    alerts = sum(path.read_text().count("alert: ") for path in folder.glob("*.yaml"))
    found = [rule for group in made["spec"]["groups"] for rule in group["rules"]]
    assert len([rule for rule in found if "alert" in rule]) == alerts > 10


def test_prometheus_computes_what_is_meant(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    assert promtool, "promtool is not installed (Debian: apt-get install prometheus)"
    queue, lag = made()["gref_triton_queue_ms"], made()["gref_consumer_lag_events"]
    groups = [
        {
            "name": "adapter",
            "rules": [
                {"record": "queue_ms", "expr": query(queue, "pod")},
                {"record": "lag", "expr": query(lag, "namespace")},
            ],
        }
    ]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    input_series = [
        {"series": series, "values": f"0+{per_second * 15}x40"}
        for series, per_second in SERIES.items()
    ]
    input_series += [{"series": series, "values": f"{value}x40"} for series, value in LAGS.items()]
    asked = {
        "queue_ms": [
            {"labels": 'queue_ms{pod="a"}', "value": 4},
            {"labels": 'queue_ms{pod="b"}', "value": 0},
        ],
        "lag": [{"labels": 'lag{namespace="gref"}', "value": 1035}],
    }
    tests = [
        {
            "interval": "15s",
            "input_series": input_series,
            "promql_expr_test": [
                {"expr": expr, "eval_time": "10m", "exp_samples": samples}
                for expr, samples in asked.items()
            ],
        }
    ]
    (tmp_path / "test.yaml").write_text(
        yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "15s", "tests": tests})
    )
    done = subprocess.run(
        [promtool, "test", "rules", str(tmp_path / "test.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
