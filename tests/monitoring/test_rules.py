"""The alert rules: what promtool says of them, and that each is tested both ways and explained."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from handlers.rerank_metrics import BUCKETS_S
from tests.monitoring.programs import (
    MONITORING,
    ROOT,
    RULE_TESTS,
    RULES,
    alerts,
    program,
    rules_of,
    selectors,
)

ALERTS = alerts()


def promtool(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [program("promtool"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_configuration_and_rules_are_valid() -> None:
    checked = promtool("check", "config", MONITORING / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(RULES)} rule files found" in checked.stdout


@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_only_then(path: Path) -> None:
    tested = promtool("test", "rules", path)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_promtool_notices_an_alert_that_does_not_fire(tmp_path: Path) -> None:
    """The test above can fail: with a threshold that is never reached it does."""
    (tmp_path / "rules").mkdir()
    rules = (MONITORING / "rules" / "clients.yaml").read_text()
    (tmp_path / "rules" / "clients.yaml").write_text(rules.replace("> 0.01", "> 0.99"))
    cases = RULE_TESTS[[path.stem for path in RULE_TESTS].index("clients")].read_text()
    cases = re.sub(r"rule_files: \[.*\]", "rule_files: [rules/clients.yaml]", cases)
    (tmp_path / "cases.yaml").write_text(cases)
    tested = promtool("test", "rules", tmp_path / "cases.yaml")
    assert tested.returncode != 0
    assert "GrefFallbackShare" in tested.stdout + tested.stderr


def _cases() -> dict[str, list[bool]]:
    """For each alert, whether each of its test cases expects it to fire."""
    found: dict[str, list[bool]] = {}
    for path in RULE_TESTS:
        for group in yaml.safe_load(path.read_text())["tests"]:
            for case in group.get("alert_rule_test", ()):
                found.setdefault(case["alertname"], []).append(bool(case["exp_alerts"]))
    return found


def test_every_alert_is_tested_both_ways() -> None:
    cases = _cases()
    assert set(cases) == set(ALERTS)
    assert [name for name, fires in cases.items() if set(fires) != {True, False}] == []


@pytest.mark.parametrize(("name", "rule"), ALERTS.items(), ids=ALERTS)
def test_every_alert_is_explained(name: str, rule: dict[str, Any]) -> None:
    assert re.fullmatch(r"Gref[A-Z]\w+", name)
    assert rule["labels"]["severity"] in ("page", "ticket")
    told = rule["annotations"]
    assert set(told) == {"summary", "description", "runbook_url"}
    assert told["runbook_url"] == f"docs/operations.md#{name.lower()}"
    runbook = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert re.search(rf"^#+ {name}$", runbook, re.M), f"docs/operations.md has no heading {name}"


def test_the_runbook_knows_no_other_alerts() -> None:
    runbook = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\bGref[A-Z]\w+", runbook)) <= set(ALERTS)


def test_the_latency_objective_is_a_bound_of_the_histogram() -> None:
    text = (MONITORING / "rules" / "latency.yaml").read_text()
    bounds = set(re.findall(r'le="([^"]+)"', text))
    assert len(bounds) == 1
    assert float(bounds.pop()) in BUCKETS_S


def test_recorded_names_follow_the_convention() -> None:
    names = [rule["record"] for path in RULES for rule in rules_of(path) if "record" in rule]
    assert len(set(names)) == len(names) > 10
    assert [name for name in names if not re.fullmatch(r"gref:\w+:\w+", name)] == []


def test_selectors_are_found() -> None:
    """The parser that the tests of the running stack rely on, on all that the rules use."""
    assert selectors('sum by (a, b) (rate(x_total{c=~"d|e",f!=""}[5m] offset 1h)) > 0.5e3') == {
        'x_total{c=~"d|e",f!=""}'
    }
    assert selectors('label_replace(m{a="b"}, "c", "$1", "d", "e_(.+)") unless on (c) g:h:i') == {
        'm{a="b"}',
        "g:h:i",
    }
    assert selectors(
        "time() - t_seconds > 26 * 3600 and on () scalar(count(up == 1)) > bool 1"
    ) == {
        "t_seconds",
        "up",
    }
