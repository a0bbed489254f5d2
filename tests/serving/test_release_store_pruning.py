"""What pruning never deletes, and when it deletes nothing at all."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.reading import ContractError
from contracts.releases import MANIFEST
from tests.serving.processes import ROOT
from tests.serving.release_folders import contents, damage, make_release
from training.release.experiments import releases_named
from training.release.publishing import publish
from training.release.release_names import LOCK_FILE
from training.release.store import DamagedError, ReleaseStore

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def store(tmp_path: Path) -> ReleaseStore:
    """r0001 <- r0002 <- r0003 <- r0004, and r0005 <- r0006; champions r0003, then r0004."""
    for number, parent in ((1, None), (2, 1), (3, 2), (4, 3), (5, None), (6, 5), (7, None)):
        make_release(tmp_path / "releases", number, parent)
    store = ReleaseStore(tmp_path / "releases")
    store.set_champion("r0003")
    store.set_champion("r0004")
    return store


def test_each_protection(store: ReleaseStore) -> None:
    plan = store.prune(1, {"r0006", "r0099"})
    assert plan.delete == ("r0002",)
    assert plan.keep == {
        "r0001": "anchor of r0003",
        "r0003": "a rollback goes back to it",
        "r0004": "champion",
        "r0005": "anchor of r0006",
        "r0006": "named by an experiment",
        "r0007": "among the newest",
    }
    assert store.prune(1, {"r0006"}).delete == (), "once is enough"
    assert store.prune(1).delete == ("r0005", "r0006")
    assert [step.state for step in store.lineage("r0004")] == [
        "present",
        "present",
        "pruned",
        "present",
    ]
    with pytest.raises(ContractError, match="no release r0006 any more: it was pruned; its man"):
        store.manifest("r0006")


def test_the_rollback_target_is_the_one_that_is_whole(store: ReleaseStore) -> None:
    store.set_champion("r0006")
    store.set_champion("r0007")
    damage(store.path("r0006"))
    plan = store.plan_pruning(1)
    assert plan.keep["r0004"] == "a rollback goes back to it"
    assert "r0006" in plan.delete


def test_names_are_not_used_again(toy_engines: Path, store: ReleaseStore) -> None:
    assert store.prune(1).delete == ("r0002", "r0005", "r0006")
    shutil.rmtree(store.path("r0007"))
    assert publish(toy_engines, store.folder).name == "r0008", "the lock file remembers"
    shutil.rmtree(store.path("r0008"))
    (store.folder / LOCK_FILE).unlink()
    assert publish(toy_engines, store.folder).name == "r0007", "above all that was ever pruned"


@pytest.mark.parametrize("keep", [0, -1])
def test_keep_none(store: ReleaseStore, keep: int) -> None:
    with pytest.raises(ContractError, match="allowed: at least 1"):
        store.prune(keep)


def test_nothing_is_deleted_where_something_is_wrong(store: ReleaseStore) -> None:
    def refused(cause: str, kind: type[ContractError] = ContractError) -> None:
        before = contents(store.folder)
        with pytest.raises(kind, match=cause):
            store.prune(1)
        assert contents(store.folder) == before

    champion, kept = store.path("r0004"), store.folder.parent / "kept"
    champion.rename(kept)
    refused("no release r0004")
    kept.rename(champion)
    path = store.path("r0002") / MANIFEST
    text = path.read_text()
    path.write_text(text[:-10])
    refused("not valid JSON", DamagedError)
    path.write_text(text)
    record = store.folder / "champion.json"
    text = record.read_text()
    record.unlink()
    refused("no champion; name one")
    record.write_text(text[:-10])
    refused("record of champions is damaged")
    record.write_text(text)
    assert store.prune(1).delete == ("r0002", "r0005", "r0006")


def test_two_prunings_at_once(store: ReleaseStore) -> None:
    command = [sys.executable, "training/releases.py", "prune", "--keep", "1", "--json"]
    both = [
        subprocess.Popen(
            [*command, "--releases", str(store.folder)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    told = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert sorted('"r0002"' in out.partition("kept")[0] for out, _ in told) == [False, True]
    assert store.names() == ("r0001", "r0003", "r0004", "r0007")


def test_releases_that_experiments_name(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "salt: x\narms:\n  - release: r0001\n    weight: 0.5\n  - model: gref_r0002_encoder\n"
        "r0003: {}\n# - release: r0004\nother: bar0005 r00061x\n"
    )
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "b.json").write_text('{"arms": {"control": "r12345"}}')
    (tmp_path / "README.md").write_text("r0009")
    named = releases_named(tmp_path)
    assert set(named) == {"r0001", "r0002", "r0003", "r0004", "r12345"}
    assert named["r12345"] == tmp_path / "old" / "b.json"


@pytest.mark.parametrize("text", ["", "arms: [", "a: 1\na: 2\n", "- r0001\n", "\xff", "# r0001\n"])
def test_an_experiment_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ContractError, match=r"a\.yml: "):
        releases_named(tmp_path)


def test_an_experiment_that_is_a_broken_link(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to(tmp_path / "gone")
    with pytest.raises(ContractError, match=r"a\.yaml: no such file"):
        releases_named(tmp_path)
    with pytest.raises(ContractError, match="no such folder of experiments"):
        releases_named(tmp_path / "gone")
