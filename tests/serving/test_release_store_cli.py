"""``python training/releases.py``: what it prints, and with which code it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from contracts.champion import CHAMPION_FILE
from contracts.releases import CHECKPOINT, DataVersion, Gate, Parents
from tests.serving.processes import run
from tests.serving.release_folders import GATE, contents, damage, make_release
from training.release.store import ReleaseStore
from training.releases import app

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """r0001 <- r0002 <- r0003 with champions r0001, then r0002; the newest has one more gate."""
    releases = tmp_path / "releases"
    make_release(releases, 1)
    make_release(releases, 2, parent=1)
    gates = (GATE, Gate(name="drift", passed=True, value=0.25, limit=0.5, detail="from [anchor]"))
    make_release(
        releases,
        3,
        gates=gates,
        parents=Parents(release="r0002", anchor="a" * 64),
        data=DataVersion(dataset="feedback", fingerprint="f", first_version=4, last_version=9),
        metrics={"ndcg": 0.75, "auc": 0.5},
    )
    store = ReleaseStore(releases)
    store.set_champion("r0001")
    store.set_champion("r0002", "more [bold] clicks")
    return releases


def command(folder: Path, *arguments: object) -> Any:
    return CliRunner().invoke(app, [*map(str, arguments), "--releases", str(folder)])


def told(folder: Path, *arguments: object) -> Any:
    """The JSON of a command that ends well."""
    done = command(folder, *arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_help_shows_examples() -> None:
    done = run("training/releases.py", "--help")
    assert done.returncode == 0
    assert "Examples:" in done.stdout
    assert "rollback --reason" in done.stdout
    for name in ("list", "show", "diff", "champion", "rollback", "verify", "prune", "install"):
        assert run("training/releases.py", name, "--help").returncode == 0


def test_list(folder: Path) -> None:
    done = command(folder, "list")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["release", "r0001", "r0002", "r0003"]
    assert [("champion" in line) for line in lines] == [False, False, True, False]
    assert "feedback v4 to v9" in lines[3]
    assert "2/2" in lines[3]
    rows = told(folder, "list")
    assert [(row["name"], row["parent"], row["champion"]) for row in rows] == [
        ("r0001", None, False),
        ("r0002", "r0001", True),
        ("r0003", "r0002", False),
    ]
    size = sum(len(content) for content in contents(folder / "r0003").values())
    assert rows[2]["bytes"] == size


def test_list_shows_what_is_damaged(folder: Path) -> None:
    (folder / "r0002" / "manifest.json").write_text("{")
    (folder / CHAMPION_FILE).unlink()
    done = command(folder, "list")
    assert done.exit_code == 0
    assert "damaged" in done.stdout
    assert "manifest.json: not valid JSON" in done.stderr
    assert "no champion; name one: python training/releases.py champion r0003" in done.stderr
    assert "not valid JSON" in told(folder, "list")[1]["damaged"]


def test_show(folder: Path) -> None:
    done = command(folder, "show", "r0003")
    assert done.exit_code == 0, done.output
    for text in ("a" * 64, str(folder / "r0003" / CHECKPOINT), "from [anchor]", "0.25", "auc 0.5"):
        assert text in done.stdout
    tree = [line for line in done.stdout.splitlines() if "2026" in line and "r000" in line]
    assert [line.lstrip("└─ ").split()[0] for line in tree] == ["r0001", "r0002", "r0003"]
    assert tree[0].endswith("anchor")
    assert "champion" in tree[1]
    plain = told(folder, "show", "r0003")
    assert plain["lineage"][-1] == {"name": "r0001", "state": "present"}
    assert plain["manifest"]["metrics"] == {"ndcg": 0.75, "auc": 0.5}


def test_diff(folder: Path) -> None:
    found = {(one["section"], one["name"]): one for one in told(folder, "diff", "r0001", "r0003")}
    assert found["settings", "seed"] == {
        "section": "settings",
        "name": "seed",
        "first": 1,
        "second": 3,
    }
    assert ("settings", "optim.rate") not in found, "it is the same"
    assert found["data", "first_version"]["second"] == 4
    assert found["gates", "drift.value"]["first"] is None
    assert not any(name.startswith("parity") for section, name in found if section == "gates")
    assert (
        found["engines", "encoder.sha256"]["first"] != found["engines", "encoder.sha256"]["second"]
    )
    assert found["metrics", "ndcg"]["second"] == 0.75
    assert ("metrics", "auc") not in found, "only one has it"
    assert not any(section == "features" for section, _ in found)
    done = command(folder, "diff", "r0001", "r0003")
    assert done.exit_code == 0
    assert "drift.value" in done.stdout
    features = folder / "r0003" / "features.yaml"
    features.write_text(features.read_text().replace("buckets: 200", "buckets: 300"))
    found = told(folder, "diff", "r0001", "r0003")
    [one] = [one for one in found if one["section"] == "features"]
    assert (one["name"], one["first"], one["second"]) == ("item.categorical.item.buckets", 200, 300)


def test_champion_and_rollback(folder: Path) -> None:
    done = command(folder, "champion")
    assert done.stdout.split()[:2] == ["r0002", "since"]
    assert "more [bold] clicks" in done.stdout
    assert command(folder, "champion", "r0003", "--reason", "best").exit_code == 0
    again = command(folder, "champion", "r0003")
    assert (again.exit_code, "nothing was changed" in again.stderr) == (0, True)
    done = command(folder, "rollback", "--reason", "worse")
    assert (done.exit_code, done.stdout.splitlines()[0]) == (0, "from r0003 back to:")
    assert done.stdout.splitlines()[1].startswith("r0002 since")
    assert told(folder, "rollback")["release"] == "r0001"
    done = command(folder, "rollback")
    assert done.exit_code == 2
    assert "no champion to go back to from r0001" in done.stderr
    plain = told(folder, "champion")
    assert plain["champion"] == "r0001"
    assert [one["rollback"] for one in plain["changes"]] == [False, False, False, True, True]
    assert command(folder, "champion", "--history").stdout.count("rollback") == 2


def test_verify(folder: Path) -> None:
    done = command(folder, "verify", "--all")
    assert done.exit_code == 0
    assert done.stdout.split() == ["r0001", "ok", "r0002", "ok", "r0003", "ok", CHAMPION_FILE, "ok"]
    damage(folder / "r0003")
    assert command(folder, "verify", "r0001", "r0002").exit_code == 0
    done = command(folder, "verify", "r0001", "r0003")
    assert done.exit_code == 3
    assert "r0003 DAMAGED" in done.stdout
    assert "was altered" in done.stdout
    plain = json.loads(command(folder, "verify", "--all", "--json").stdout)
    assert [bool(plain[name]) for name in sorted(plain)] == [False, False, False, True]
    assert command(folder, "champion", "r0003").exit_code == 3
    (folder / CHAMPION_FILE).write_text("{")
    assert "record of champions is damaged" in command(folder, "verify", "--all").stdout


def test_prune(folder: Path, tmp_path: Path) -> None:
    experiments = tmp_path / "experiments"
    experiments.mkdir()
    before = contents(folder)
    plain = told(folder, "prune", "--keep", 1, "--dry-run", "--experiments", experiments)
    assert (plain["deleted"], plain["dry_run"]) == ([], True), "the rollback target is r0001"
    command(folder, "champion", "r0003")
    assert told(folder, "prune", "--keep", 1, "--dry-run")["deleted"] == []
    make_release(folder, 4)
    make_release(folder, 5)
    (experiments / "one.yaml").write_text("arms: {a: r0004}")
    done = command(folder, "prune", "--keep", 1, "--experiments", experiments)
    assert (done.exit_code, "r0004" in done.stdout, "one.yaml" in done.stdout) == (0, True, True)
    assert (folder / "r0004").is_dir()
    make_release(folder, 6)
    (experiments / "two.yaml").write_text("arms: {")
    done = command(folder, "prune", "--keep", 1, "--experiments", experiments)
    assert done.exit_code == 2
    assert "two.yaml: not valid YAML" in done.stderr
    assert (folder / "r0005").is_dir()
    (experiments / "two.yaml").unlink()
    assert told(folder, "prune", "--keep", 1, "--experiments", experiments)["deleted"] == ["r0005"]
    assert set(before) - set(contents(folder)) == set(), "what was there first is needed still"


def test_install(folder: Path, tmp_path: Path) -> None:
    repository = tmp_path / "served"
    done = command(folder, "install", "r0003", "--repository", repository)
    assert done.exit_code == 0, done.output
    assert (repository / "gref_r0003" / "config.pbtxt").is_file()
    assert "already" in command(folder, "install", "r0003", "--repository", repository).stdout
    assert command(folder, "uninstall", "r0003", "--repository", repository).exit_code == 0
    assert not (repository / "gref_r0003").exists()
    done = command(folder, "uninstall", "r0002", "--repository", repository)
    assert (done.exit_code, "r0002 is the champion" in done.stderr) == (3, True)
    damage(folder / "r0003")
    assert command(folder, "install", "r0003", "--repository", repository).exit_code == 3


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["show", "r0009"], "no release r0009; the newest is r0003"),
        (["show", "../r0001"], "allowed: r and at least four digits"),
        (["diff", "r0001", "r9"], "allowed: r and at least four digits"),
        (["champion", "r0009"], "no release r0009"),
        (["verify"], "give names of releases, or --all"),
        (["verify", "r0001", "--all"], "give names of releases, or --all"),
        (["verify", "r0009"], "no release r0009"),
        (["prune", "--keep", "0"], "--keep"),
        (["prune"], "--keep"),
        (["prune", "--keep", "1", "--experiments", "nowhere"], "no such folder of experiments"),
        (["uninstall", "r0003", "--repository", "nowhere"], "no such repository"),
    ],
)
def test_bad_input(folder: Path, arguments: list[str], cause: str) -> None:
    before = contents(folder)
    done = command(folder, *arguments)
    assert done.exit_code == 2, done.output
    assert cause in done.stderr
    after = contents(folder)
    assert {k: v for k, v in after.items() if k != ".publish.lock"} == {
        k: v for k, v in before.items() if k != ".publish.lock"
    }


def test_no_folder_and_an_empty_one(tmp_path: Path) -> None:
    done = command(tmp_path / "nowhere", "list")
    assert (done.exit_code, "no such folder of releases" in done.stderr) == (2, True)
    done = command(tmp_path, "list")
    assert (done.exit_code, "no releases yet" in done.stdout) == (0, True)
    assert told(tmp_path, "list") == []
    done = command(tmp_path, "champion")
    assert (done.exit_code, "there is no release; publish one" in done.stderr) == (2, True)
