"""Grafana's files: the JSON is that of the panels, and Grafana will find what they name."""

from __future__ import annotations

import itertools
import json

import yaml

from deploy.monitoring.dashboard import COLUMNS, FILE, dashboard, text
from tests.monitoring.programs import MONITORING

BOARD = dashboard()
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
GRAFANA = MONITORING / "grafana"


def test_the_file_is_up_to_date() -> None:
    assert FILE.read_text(encoding="utf-8") == text(), "run python deploy/monitoring/dashboard.py"
    assert json.loads(text()) == BOARD


def test_rows_and_panels() -> None:
    rows = [panel["title"] for panel in BOARD["panels"] if panel["type"] == "row"]
    assert len(rows) == 5
    assert len(PANELS) > 40
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    titles = [panel["title"] for panel in PANELS]
    assert len(set(titles)) == len(titles)
    for panel in PANELS:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["targets"], panel["title"]


def test_no_panel_lies_on_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        grid = panel["gridPos"]
        assert 0 < grid["w"] <= COLUMNS - grid["x"]
        cells = set(
            itertools.product(
                range(grid["x"], grid["x"] + grid["w"]), range(grid["y"], grid["y"] + grid["h"])
            )
        )
        assert not taken & cells, panel["title"]
        taken |= cells


def test_the_data_source_is_provisioned() -> None:
    sources = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yaml").read_text())
    (source,) = sources["datasources"]
    used = {(panel["datasource"]["type"], panel["datasource"]["uid"]) for panel in PANELS}
    assert used == {(source["type"], source["uid"])}
    providers = yaml.safe_load((GRAFANA / "provisioning/dashboards/gref.yaml").read_text())
    assert providers["providers"][0]["type"] == "file"
