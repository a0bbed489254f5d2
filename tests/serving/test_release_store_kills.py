"""A change of the store that is killed at any file operation is made or not made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.serving.processes import run
from tests.serving.release_folders import contents, make_release
from training.release.installing import install
from training.release.release_names import LOCK_FILE
from training.release.store import ReleaseStore

pytestmark = pytest.mark.timeout(180)
HERE = Path(__file__).parent


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """r0001 <- ... <- r0005; the champion was r0001 and is r0003."""
    folder = tmp_path / "template"
    folder.mkdir()
    for number in range(1, 6):
        make_release(folder, number, parent=number - 1 or None)
    store = ReleaseStore(folder)
    store.set_champion("r0001", "first")
    store.set_champion("r0003", "better")
    return folder


def killed(action: str, template: Path, at_least: int) -> list[dict[str, Any]]:
    done = run(HERE / "change_and_die.py", action, template, template.parent / "store")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert sum(line["killed"] for line in lines) >= at_least, "the operations were not seen"
    assert not lines[-1]["killed"]
    return lines


def test_a_new_champion(template: Path) -> None:
    lines = killed("champion", template, at_least=4)
    seen = [line["seen"]["champion"] for line in lines]
    assert set(seen) == {"r0003", "r0002"}
    assert seen == sorted(seen, reverse=True), "once it is made it is made"
    for line in lines:
        assert line["seen"]["changes"] == (3 if line["seen"]["champion"] == "r0002" else 2)
        assert line["repeated"]["champion"] == "r0002"
        assert line["repeated"]["changes"] == 3
        assert line["repeated"]["others"] == [LOCK_FILE], "what a kill left is gone"


def test_a_rollback(template: Path) -> None:
    lines = killed("rollback", template, at_least=4)
    assert {line["seen"]["champion"] for line in lines} == {"r0003", "r0001"}
    for line in lines:
        assert (line["repeated"]["champion"], line["repeated"]["changes"]) == ("r0001", 3)


def test_a_prune(template: Path) -> None:
    lines = killed("prune", template, at_least=30)
    sizes = [len(line["seen"]["names"]) for line in lines]
    assert sizes == sorted(sizes, reverse=True)
    assert set(sizes) == {5, 4, 3}, "r0002 goes, then r0004; nothing else is ever missing"
    for line in lines:
        for state in (line["seen"], line["repeated"]):
            assert state["champion"] == "r0003"
            assert set(state["anchors"]) == {"r0001"}, "lineage goes through what was pruned"
        assert line["repeated"]["names"] == ["r0001", "r0003", "r0005"]
        assert line["repeated"]["others"] == [".pruned", LOCK_FILE]


MODELS = ["gref_r0001", "gref_r0001_decoder", "gref_r0001_encoder"]


def test_an_installation(template: Path) -> None:
    (template / "served").mkdir()
    lines = killed("install", template, at_least=25)
    whole = lines[-1]["seen"]["models"]
    assert sorted(whole) == MODELS
    for line in lines:
        found = line["seen"]["models"]
        assert all(found[model] == whole[model] for model in found), "half a model is to be seen"
        assert "gref_r0001" not in found or sorted(found) == MODELS, "the ensemble comes last"
        assert line["repeated"] == {"models": whole, "aside": []}
    assert any(line["seen"]["aside"] for line in lines)


def test_taking_out(template: Path) -> None:
    install(template / "r0001", template / "served")
    lines = killed("uninstall", template, at_least=10)
    whole = lines[0]["seen"]["models"]
    assert sorted(whole) == MODELS
    for line in lines:
        found = line["seen"]["models"]
        assert all(found[model] == whole[model] for model in found), "half a model is to be seen"
        assert "gref_r0001" not in found or sorted(found) == MODELS, "the ensemble goes first"
        assert line["repeated"] == {"models": {}, "aside": []}


def test_a_disk_that_takes_no_more(template: Path) -> None:
    """Files may not grow beyond a few bytes: the change fails where it writes, and is not made."""
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from training.release.store import ReleaseStore\n"
        "from training.release.release_names import PublishError\n"
        "store = ReleaseStore(Path(sys.argv[1]))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))\n"
        "for change in (lambda: store.set_champion('r0002'), store.rollback,\n"
        "               lambda: store.prune(1)):\n"
        "    try: change()\n"
        "    except PublishError as error: print(error)\n"
    )
    before = contents(template)
    done = run("-c", script, template)
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert len(told) == 3
    assert all("File too large" in line and "make room" in line for line in told)
    del before[LOCK_FILE]  # it may remember the last name by now
    assert contents(template).keys() - {LOCK_FILE} == before.keys(), "nothing lies about"
    assert ReleaseStore(template).champion() == "r0003"
    assert all(contents(template)[name] == before[name] for name in before)
