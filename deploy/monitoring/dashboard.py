"""Write Grafana's dashboard from its panels.

    python deploy/monitoring/dashboard.py          # after a change of deploy/monitoring/panels.yaml

The JSON is committed, so that Grafana and reviewers read the same file; a test holds the two
together.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from contracts.reading import Strict, read_yaml

_HERE = Path(__file__).parent
PANELS = _HERE / "panels.yaml"
FILE = _HERE / "grafana" / "dashboards" / "gref.json"
#: Width of Grafana's grid.
COLUMNS = 24
_SOURCE = {"type": "prometheus", "uid": "prometheus"}
_STAT_HEIGHT, _HEIGHT = 5, 8


class Query(Strict, kw_only=True, frozen=True):
    """A PromQL expression, and the name of its series in the legend."""

    expr: str
    legend: str = ""


class Panel(Strict, kw_only=True, frozen=True):
    """One panel.

    Attributes:
        unit: as Grafana names it: reqps, s, percentunit, short, dtdurations, bytes.
        width: in columns of the grid.
        limit: where it turns red; with ``low_is_bad`` below it.
    """

    title: str
    description: str
    queries: tuple[Query, ...]
    kind: Literal["timeseries", "stat", "table"] = "timeseries"
    unit: str = "short"
    width: int = 8
    limit: float | None = None
    low_is_bad: bool = False


class Row(Strict, kw_only=True, frozen=True):
    """A heading with the panels beneath it."""

    title: str
    panels: tuple[Panel, ...]


class Panels(Strict, kw_only=True, frozen=True):
    """``panels.yaml``: the rows of the dashboard from top to bottom."""

    rows: tuple[Row, ...]


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row in read_yaml(PANELS, Panels).rows:
        grid = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        panels.append({"type": "row", "title": row.title, "gridPos": grid, "collapsed": False})
        y = _place(row.panels, y + 1, panels)
    for number, panel in enumerate(panels, start=1):
        panel["id"] = number
    return {
        "uid": "gref",
        "title": "GReF",
        "description": "What users see, Triton, experiments, feedback, and the nightly refresh.",
        "tags": ["gref"],
        "timezone": "utc",
        "editable": False,
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_experiments()]},
        "panels": panels,
    }


def _place(row: tuple[Panel, ...], y: int, panels: list[dict[str, Any]]) -> int:
    """Put panels side by side, a new line where one does not fit; returns the next free line."""
    x, tallest = 0, 0
    for panel in row:
        height = _STAT_HEIGHT if panel.kind == "stat" else _HEIGHT
        if x + panel.width > COLUMNS:
            x, y, tallest = 0, y + tallest, 0
        panels.append(_panel(panel, {"x": x, "y": y, "w": panel.width, "h": height}))
        x, tallest = x + panel.width, max(tallest, height)
    return y + tallest


def _panel(panel: Panel, grid: dict[str, int]) -> dict[str, Any]:
    instant = panel.kind != "timeseries"
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "gridPos": grid,
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": _SOURCE,
                "expr": query.expr,
                "legendFormat": query.legend or "__auto",
                "instant": instant,
                "range": not instant,
            }
            for number, query in enumerate(panel.queries)
        ],
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0 if panel.unit in ("reqps", "s", "bytes") else None,
                "color": {"mode": "thresholds" if panel.kind == "stat" else "palette-classic"},
                "thresholds": {"mode": "absolute", "steps": _steps(panel)},
                "custom": _custom(panel),
            },
            "overrides": [],
        },
        "options": _options(panel),
    }


def _steps(panel: Panel) -> list[dict[str, Any]]:
    below, above = ("red", "green") if panel.low_is_bad else ("green", "red")
    if panel.limit is None:
        return [{"color": "green", "value": None}]
    return [{"color": below, "value": None}, {"color": above, "value": panel.limit}]


def _custom(panel: Panel) -> dict[str, Any]:
    if panel.kind != "timeseries":
        return {}
    line = "dashed" if panel.limit is not None else "off"
    return {"fillOpacity": 8, "showPoints": "never", "thresholdsStyle": {"mode": line}}


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        named = any(query.legend for query in panel.queries)
        return {
            "reduceOptions": {"calcs": ["lastNotNull"]},
            "textMode": "value_and_name" if named else "value",
            "colorMode": "value",
            "graphMode": "none",
        }
    if panel.kind == "table":
        return {"showHeader": True}
    return {"legend": {"displayMode": "list"}, "tooltip": {"mode": "multi", "sort": "desc"}}


def _experiments() -> dict[str, Any]:
    """The menu of experiments, all of them at first."""
    return {
        "name": "experiment",
        "label": "Experiment",
        "type": "query",
        "datasource": _SOURCE,
        "query": "label_values(gref_experiment_running, experiment)",
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


def text() -> str:
    """The file's content."""
    return json.dumps(dashboard(), indent=1) + "\n"


@app.command(epilog="Example: python deploy/monitoring/dashboard.py")
def main(
    out: Annotated[Path, typer.Option(help="File to write.")] = FILE,
) -> None:
    """Write Grafana's dashboard from deploy/monitoring/panels.yaml."""
    out.write_text(text(), encoding="utf-8")
    typer.echo(f"wrote {out}")


if __name__ == "__main__":
    app()
