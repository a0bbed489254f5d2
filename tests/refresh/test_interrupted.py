"""Refreshes that are killed, find no room, or meet another: the old state, or the whole release."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from contracts.releases import verify_release
from tests.refresh.refreshes import TINY, Place, place, refreshed, tree
from tests.training.runs import ROOT, assert_same_weights, settings
from training.refreshing.lock import LOCK_FILE, refresh_lock
from training.release.store import ReleaseStore

pytestmark = pytest.mark.timeout(240)

STEPS = ("train", "epoch", "evaluate", "export", "report", "publish", "install", "clean")


def attempts(where: Place, *plan: str) -> list[dict[str, Any]]:
    script = Path(__file__).with_name("interrupted.py")
    words = (script, ",".join(plan), where.table, where.releases, where.repository)
    done = subprocess.run(
        [sys.executable, *map(str, words), *settings(*TINY)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_killed_at_every_step_it_ends_in_the_same_release(
    releases: Path, table: Path, tmp_path: Path
) -> None:
    whole, often = (place(tmp_path / name, releases, table) for name in ("whole", "often"))
    told = attempts(often, *(f"die:{step}" for step in STEPS[:-1]), "run")
    assert [one.get("killed") for one in told[:-1]] == [9] * (len(STEPS) - 1)
    # It died after it had published: what was missing was to install, and that was done.
    assert (told[-1]["outcome"], told[-1]["release"]) == ("unchanged", "r0002")
    assert ReleaseStore(often.releases).names() == ("r0001", "r0002")
    assert len(list(often.repository.glob("gref_r0002*"))) == 3
    assert not (often.releases / ".refresh").exists()

    (once,) = attempts(whole, "run")
    assert (once["outcome"], once["release"]) == ("published", "r0002")
    both = [where.releases / "r0002" / "checkpoint.pt" for where in (whole, often)]
    assert_same_weights(*both)
    manifests = [verify_release(where.releases / "r0002") for where in (whole, often)]
    assert manifests[0].data == manifests[1].data
    assert manifests[0].settings == manifests[1].settings


def test_without_room_nothing_is_half_published(
    releases: Path, table: Path, tmp_path: Path
) -> None:
    where = place(tmp_path, releases, table)
    before = tree(releases)
    # Slates; the run's state; engines; and, when all that stands, the release itself.
    plan = ("full:20000", "die:train", "full:60000", "die:publish", "full:60000", "run")
    told = attempts(where, *plan)
    for number in (0, 2, 4):
        assert "error" in told[number], told[number]
        assert "cannot" in told[number]["error"]
    assert told[-1]["outcome"] == "published"
    now = tree(where.releases)
    assert {name: now[name] for name in before if name != ".publish.lock"} == {
        name: value for name, value in before.items() if name != ".publish.lock"
    }
    verify_release(where.releases / "r0002")


def test_no_room_is_exit_code_2_and_the_folder_stays_as_it_was(
    releases: Path, table: Path, tmp_path: Path
) -> None:
    where = place(tmp_path, releases, table)
    before = tree(where.releases)
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000));"
        "from training.refresh import app; app()"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, *where.arguments()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    after = tree(where.releases)
    assert {name: after[name] for name in before} == before
    assert ReleaseStore(where.releases).names() == ("r0001",)


def test_two_at_once(releases: Path, table: Path, tmp_path: Path) -> None:
    where = place(tmp_path, releases, table)
    with refresh_lock(where.releases):
        holder = (where.releases / LOCK_FILE).read_text().strip()
        second = refreshed(where)
        assert second.code == 2
        assert " ".join(holder.split()) in " ".join(second.output.split())
        assert "another refresh" in second.output
        assert refreshed(where, "--dry-run").code == 0  # changes nothing, so it may
    assert ReleaseStore(where.releases).names() == ("r0001",)
