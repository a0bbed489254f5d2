"""``python streaming/table.py``: each violation is found, exit codes, JSON, picture."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from deltalake import CommitProperties, DeltaTable, Field, Transaction
from deltalake.schema import PrimitiveType
from PIL import Image
from typer.testing import CliRunner, Result

from contracts.features import FeatureSpec
from contracts.feedback_table import LANE_FIELDS
from contracts.reading import read_yaml
from streaming.feedback_table.opening import create_or_open
from streaming.table import app
from tests.conftest import ROOT
from tests.streaming.feedback_tables import DAY_MS, MINUTE, NOON, SPEC, append, rows_of, slate


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """Thirty right slates of three days in two commits."""
    uri = str(tmp_path / "feedback")
    create_or_open(uri, SPEC)
    append(uri, [slate(number) for number in range(20)])
    fields = {name: at for at, name in enumerate(LANE_FIELDS)}
    append(uri, [slate(number) for number in range(20, 30)], **fields)
    return uri


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def told(*arguments: str, code: int = 0) -> Any:
    """The JSON of a command."""
    result = run(*arguments, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def bad(number: int, **changes: Any) -> dict[str, Any]:
    return {**rows_of([slate(number)])[0], **changes}


VIOLATIONS: list[tuple[str, dict[str, Any]]] = [
    ("duplicate_request", {"request_id": "q000003"}),
    ("missing", {"user": ""}),
    ("candidate_twice", {"candidates": ["a", "b", "a"]}),
    ("exposed_twice", {"exposed": [1, 1]}),
    ("exposed_out_of_range", {"exposed": [1, 3]}),
    ("candidates_unaligned", {"scores": [0.5]}),
    ("candidates_unaligned", {"item__price": [1.0, 2.0]}),
    ("log_prob", {"log_prob": [-1.0]}),
    ("log_prob", {"log_prob": [-1.0, 0.5]}),
    ("not_finite", {"item__price": [1.0, 2.0, math.inf]}),
    ("not_finite", {"user__age": math.nan}),
    ("exploration", {"temperature": -1.0}),
    ("day", {"day": "2023-11-14"}),
    ("feedback_unaligned", {"feedback__click": [1.0], "feedback_time__click": [NOON]}),
    ("feedback_value", {"feedback__click": [0.5, None]}),
    ("feedback_value", {"feedback__watch": [-1.0, None]}),
    ("feedback_without_time", {"feedback_time__click": [None, None]}),
    ("feedback_outside_window", {"feedback_time__click": [NOON - 6 * MINUTE, None]}),
    ("feedback_outside_window", {"feedback_time__click": [NOON + 2 * DAY_MS, None]}),
]


@pytest.mark.parametrize(("rule", "changes"), VIOLATIONS)
def test_each_violation_is_found(uri: str, rule: str, changes: dict[str, Any]) -> None:
    changes = {
        "feedback__watch": [None, None],
        "feedback_time__watch": [None, None],
        **changes,
    }
    if changes["feedback__watch"][0] is not None:
        changes["feedback_time__watch"] = [NOON, None]
    row = bad(60, **changes)
    row["feedback__click"] = changes.get("feedback__click", row["feedback__click"])
    append(uri, [row])
    found = told("validate", uri, "--join-window", "1d", code=3)
    assert found["rows"] == 31
    (violation,) = found["violations"]
    assert (violation["rule"], violation["rows"]) == (rule, 1)
    assert violation["request_ids"] == [row["request_id"]]
    assert uri in violation["mend"] or "TABLE" not in violation["mend"]
    shown = run("validate", uri, "--join-window", "1d")
    assert shown.exit_code == 3
    assert rule in shown.stdout
    assert row["request_id"] in shown.stdout
    # Days before it are as they were.
    if row["day"] == "2023-11-15" and rule != "duplicate_request":
        assert run("validate", uri, "--from-day", "2023-11-16").exit_code == 0


def test_right_tables_are_fine(uri: str, tmp_path: Path) -> None:
    found = told("validate", uri, "--join-window", "1m", "--clock-skew", "0s")
    assert (found["rows"], found["violations"]) == (30, [])
    rates = {(one["kind"], one["of"]): (one["given"], one["shown"]) for one in found["by_position"]}
    assert rates["click", "1"] == (15, 30)
    assert rates["watch", "2"] == (10, 30)
    assert sum(one["shown"] for one in found["by_day"] if one["kind"] == "click") == 60
    assert run("validate", uri).exit_code == 0
    assert told("validate", uri, "--version", "1")["rows"] == 20
    assert told("validate", uri, "--version", "0")["rows"] == 0


def test_five_of_many_are_named(uri: str) -> None:
    append(uri, [bad(number, temperature=-1.0) for number in range(100, 112)])
    append(uri, [slate(number) for number in range(9)])
    exploration, duplicates = sorted(
        told("validate", uri, code=3)["violations"], key=lambda one: -one["rows"]
    )
    assert (exploration["rows"], len(set(exploration["request_ids"]))) == (12, 5)
    assert (duplicates["rows"], len(set(duplicates["request_ids"]))) == (9, 5)


def test_other_columns_are_a_violation(uri: str) -> None:
    DeltaTable(uri).alter.add_columns(Field("extra", PrimitiveType("long")))
    result = run("validate", uri)
    assert result.exit_code == 3
    assert "extra is int64, expected absent" in result.stderr
    assert run("info", uri).exit_code == 2


@pytest.mark.parametrize("version", ["2", "0"])
def test_the_picture(uri: str, tmp_path: Path, version: str) -> None:
    picture = tmp_path / "rates.png"
    assert run("validate", uri, "--version", version, "--plot", str(picture)).exit_code == 0
    with Image.open(picture) as image:
        assert image.size[0] > 800
        colours = [colour for _, colour in image.convert("RGB").getcolors(1 << 20)]
    # Curves are what is coloured; a table without a row has none.
    assert any(max(one) - min(one) > 80 for one in colours) == (version == "2")
    nowhere = run("validate", uri, "--plot", str(tmp_path / "no" / "rates.png"))
    assert nowhere.exit_code == 2
    assert "rates.png" in nowhere.stderr


def test_info_tells_what_is_there(uri: str) -> None:
    found = told("info", uri)
    assert (found["version"], found["rows"], found["files"]) == (2, 30, 6)
    assert found["size_bytes"] == sum(
        one.stat().st_size for one in Path(uri).glob("day=*/*.parquet")
    )
    assert [(one["day"], one["rows"]) for one in found["days"]] == [
        ("2023-11-15", 10),
        ("2023-11-16", 10),
        ("2023-11-17", 10),
    ]
    assert found["feature_spec_sha256"] == SPEC.hash()
    assert found["shown"] == [
        {"release": "r0001", "arm": "a", "rows": 15},
        {"release": "r0002", "arm": "a", "rows": 15},
    ]
    (group,) = found["groups"]
    assert group["name"] == "g"
    assert group["lanes"] == [{"partition": 0, **{name: at for at, name in enumerate(LANE_FIELDS)}}]
    assert [one["version"] for one in found["commits"]] == [2, 1, 0]
    assert [one["rows"] for one in found["commits"]] == [10, 20, None]
    assert found["warnings"] == []
    assert len(told("info", uri, "--commits", "1")["commits"]) == 1
    shown = run("info", uri)
    assert shown.exit_code == 0
    assert "r0002" in shown.stdout


def test_releases_are_told_without_statistics_too(uri: str) -> None:
    """A release whose name is as long as statistics may be, in a file of its own."""
    long = "r" + "0" * 40
    append(uri, [bad(3 * number, release=long, arm=None) for number in range(50, 54)])
    assert {"release": long, "arm": "", "rows": 4} in told("info", uri)["shown"]


def test_the_spec_can_be_had_from_the_table(uri: str, tmp_path: Path) -> None:
    result = run("info", uri, "--features")
    (tmp_path / "features.yaml").write_text(result.stdout)
    assert read_yaml(tmp_path / "features.yaml", FeatureSpec) == SPEC


def test_two_groups_and_small_files_are_warned_of(uri: str) -> None:
    DeltaTable(uri).alter.set_table_properties(
        {"delta.checkpointInterval": "100"},
        commit_properties=CommitProperties(
            app_transactions=[Transaction(app_id="gref/other/3/commits", version=1)]
        ),
    )
    (warning,) = told("info", uri)["warnings"]
    assert "groups g, other" in warning


def test_compact_and_vacuum(uri: str) -> None:
    assert told("compact", uri)["files_removed"] == 6
    assert run("compact", uri).stdout.startswith("nothing to compact")
    assert told("vacuum", uri)["files"] == 0
    refused = run("vacuum", uri, "--retention", "1d", "--delete")
    assert refused.exit_code == 3
    assert "--force" in refused.stderr
    would = told("vacuum", uri, "--retention", "0h", "--force")
    assert (would["deleted"], would["files"]) == (False, 6)
    assert len(list(Path(uri).glob("day=*/*.parquet"))) == 9
    assert told("vacuum", uri, "--retention", "0h", "--force", "--delete")["files"] == 6
    assert len(list(Path(uri).glob("day=*/*.parquet"))) == 3
    assert told("validate", uri)["rows"] == 30
    # Gone from disk, and still in the log.
    gone = run("validate", uri, "--version", "1")
    assert gone.exit_code == 2
    assert "error: " in gone.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("info", "nowhere/at/all"), "no table there"),
        (("info", "{uri}", "--version", "99"), "cannot be opened"),
        (("info", "{uri}", "--storage-option", "nonsense"), "KEY=VALUE"),
        (("validate", "{uri}", "--join-window", "ten"), "--join-window"),
        (("validate", "{uri}", "--from-day", "yesterday"), "YYYY-MM-DD"),
        (("vacuum", "{uri}", "--retention", "90m"), "whole hours"),
        (("vacuum", "{uri}", "--keep-version", "99"), "--keep-version 99"),
    ],
)
def test_bad_input(uri: str, arguments: tuple[str, ...], message: str) -> None:
    result = run(*(one.format(uri=uri) for one in arguments))
    assert result.exit_code == 2, result.output
    assert message in result.stderr


@pytest.mark.parametrize("command", [(), ("info",), ("validate",), ("compact",), ("vacuum",)])
def test_help_has_examples(command: tuple[str, ...]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    plain = re.sub(r"\s+", " ", result.stdout)
    assert plain.count("python streaming/table.py") >= 2


@pytest.mark.timeout(120)
def test_runs_as_a_script_from_the_root(uri: str) -> None:
    done = subprocess.run(
        [sys.executable, "streaming/table.py", "info", uri, "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["rows"] == 30
