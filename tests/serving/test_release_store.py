"""The store: who is the champion, what is damaged, what came from what."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from contracts.champion import CHAMPION_FILE, ChampionChange, ChampionFile
from contracts.reading import ContractError, read_json
from contracts.releases import MANIFEST, Parents
from tests.serving.processes import ROOT
from tests.serving.release_folders import contents, damage, make_release, record_text
from training.release.publishing import publish
from training.release.release_names import LOCK_FILE, PublishError
from training.release.store import DamagedError, ReleaseStore

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def store(tmp_path: Path) -> ReleaseStore:
    """r0001 <- r0002 <- r0003, and r0001 is the champion."""
    for number in (1, 2, 3):
        make_release(tmp_path, number, parent=number - 1 or None)
    store = ReleaseStore(tmp_path)
    store.set_champion("r0001", "the first")
    return store


def test_names_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    store = ReleaseStore(tmp_path / "releases")
    assert store.names() == (), "a folder that is not there yet"
    for number in (10000, 9999, 2):
        make_release(store.folder, number)
    (store.folder / ".staging-x").mkdir()
    (store.folder / "r0005").write_text("a file")
    (store.folder / "r12").mkdir()
    assert store.names() == ("r0002", "r9999", "r10000")


def test_the_first_release_becomes_the_champion(toy_engines: Path, tmp_path: Path) -> None:
    store = ReleaseStore(tmp_path)
    with pytest.raises(ContractError, match=r"no release; publish one \(training/publish\.py\)"):
        store.champion()
    assert publish(toy_engines, tmp_path).name == store.champion() == "r0001"
    publish(toy_engines, tmp_path)
    assert store.champion() == "r0001", "a later one never becomes it by itself"
    assert store.record().changes[0].reason == "the first release"


def test_a_store_without_champion_gets_none_by_itself(toy_engines: Path, tmp_path: Path) -> None:
    """Releases from before there were champions: publishing cannot know which of them it is."""
    make_release(tmp_path, 1)
    publish(toy_engines, tmp_path)
    with pytest.raises(ContractError, match=r"name one: python training/releases\.py champion r00"):
        ReleaseStore(tmp_path).champion()


def test_changes_are_recorded(store: ReleaseStore) -> None:
    assert store.set_champion("r0003", "better clicks\n– measured") is True
    assert store.champion() == "r0003"
    before = record_text(store.folder)
    assert store.set_champion("r0003", "again") is False
    assert record_text(store.folder) == before, "no change, no entry"
    assert store.rollback("worse") == "r0001"
    told = [(one.release, one.reason, one.rollback) for one in store.record().changes]
    assert told == [
        ("r0001", "the first", False),
        ("r0003", "better clicks\n– measured", False),
        ("r0001", "worse", True),
    ]
    assert all(one.time.endswith("+00:00") for one in store.record().changes)


def test_a_champion_that_somebody_else_has_named_meanwhile(store: ReleaseStore) -> None:
    store.set_champion("r0002")
    assert store.set_champion("r0003", "refresh of r0001", expected="r0001") is False
    assert store.champion() == "r0002"
    assert store.set_champion("r0003", "refresh of r0002", expected="r0002") is True


def test_only_a_whole_release_becomes_champion(store: ReleaseStore) -> None:
    before = record_text(store.folder)
    damage(store.path("r0002"))
    with pytest.raises(DamagedError, match=r"model\.pt was altered"):
        store.set_champion("r0002")
    with pytest.raises(ContractError, match="no release r0009; the newest is r0003"):
        store.set_champion("r0009")
    for name in ("../r0001", "r1", "", "r0001\n", "champion.json"):
        with pytest.raises(ContractError, match="allowed: r and at least four digits"):
            store.set_champion(name)
    shutil.copytree(store.path("r0003"), store.folder / "r0004")
    with pytest.raises(DamagedError, match="names r0003; a release must not be renamed or copied"):
        store.set_champion("r0004")
    assert record_text(store.folder) == before


def test_a_champion_that_is_damaged_or_gone(store: ReleaseStore) -> None:
    store.set_champion("r0003")
    damage(store.path("r0003"))
    with pytest.raises(DamagedError, match=r"champion r0003 cannot be used: .* was altered .*back"):
        store.champion()
    shutil.rmtree(store.path("r0003"))
    with pytest.raises(ContractError, match=r"r0003 cannot be used: .*no release r0003.*rollback"):
        store.champion()
    assert store.rollback() == "r0001"
    assert store.champion() == "r0001"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"version": 1, "changes": []}',
        '{"version": 2, "changes": [{"release": "r0001", "time": "t"}]}',
        '{"version": 1, "changes": [{"release": "../r1", "time": "t"}]}',
        '{"version": 1, "changes": [{"release": "r0001", "time": "t", "rollback": true}]}',
        '{"version": 1, "changes": [{"release": "r0001", "time": "t"}], "more": 1}',
        "\xff\xfe",
    ],
)
def test_a_damaged_record(store: ReleaseStore, text: str) -> None:
    path = store.folder / CHAMPION_FILE
    path.write_bytes(text.encode("latin-1"))
    cause = r"record of champions is damaged .* name the champion anew: python training/releases"
    for read in (store.champion, store.rollback, lambda: store.plan_pruning(1)):
        with pytest.raises(ContractError, match=cause):
            read()
    assert path.read_bytes() == text.encode("latin-1"), "left for whoever looks into it"
    assert store.set_champion("r0002", "the record was damaged")
    assert store.champion() == "r0002"
    kept = list(store.folder.glob(f"{CHAMPION_FILE}.damaged-*"))
    assert [one.read_bytes() for one in kept] == [text.encode("latin-1")]


def test_a_rollback_that_the_record_cannot_mean() -> None:
    def changes(*names: str) -> tuple[ChampionChange, ...]:
        return tuple(
            ChampionChange(release=name.lstrip("<"), time="t", rollback=name.startswith("<"))
            for name in names
        )

    assert ChampionFile(changes=changes("r0001", "r0002", "<r0001")).earlier == ()
    with pytest.raises(ValueError, match=r"changes\[2\] goes back to r0003"):
        ChampionFile(changes=changes("r0001", "r0002", "<r0003"))
    with pytest.raises(ValueError, match=r"changes\[3\] goes back to r0002"):
        ChampionFile(changes=changes("r0001", "r0002", "<r0001", "<r0002"))


def test_rollback_passes_over_what_is_damaged(store: ReleaseStore) -> None:
    for name in ("r0002", "r0003"):
        store.set_champion(name)
    damage(store.path("r0002"))
    change = store.roll_back("clicks fell")
    assert (change.release, change.rollback) == ("r0001", True)
    assert change.reason.startswith("clicks fell; passed over r0002: ")
    with pytest.raises(ContractError, match="no champion to go back to from r0001"):
        store.rollback()
    assert store.champion() == "r0001"


def test_rollback_does_not_end_where_it_began(store: ReleaseStore) -> None:
    """r0001, r0002, r0001: without r0002 there is nothing to go back to."""
    for name in ("r0002", "r0001"):
        store.set_champion(name)
    damage(store.path("r0002"))
    with pytest.raises(ContractError, match="no champion to go back to from r0001; passed over"):
        store.rollback()
    assert (
        ChampionFile(
            changes=tuple(
                ChampionChange(release=name, time="t", rollback=back)
                for name, back in (
                    ("r0001", False),
                    ("r0002", False),
                    ("r0001", False),
                    ("r0001", True),
                )
            )
        ).earlier
        == ()
    ), "a rollback always leaves the champion of its time"


def test_many_change_the_champion_at_once(store: ReleaseStore) -> None:
    """Every change is recorded: none is lost between reading and writing the file."""
    script = (
        "import sys; from pathlib import Path; from training.release.store import ReleaseStore\n"
        "store = ReleaseStore(Path(sys.argv[1]))\n"
        "for turn in range(10):\n"
        "    store.set_champion('r0002', sys.argv[2]); store.set_champion('r0003', sys.argv[2])\n"
        "    store.champion()\n"
    )
    command = [sys.executable, "-c", script, str(store.folder)]
    processes = [
        subprocess.Popen([*command, f"writer {k}"], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for k in range(3)
    ]
    told = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], told
    changes = store.record().changes
    assert len({one.reason for one in changes}) == 4
    names = [one.release for one in changes]
    assert all(a != b for a, b in pairwise(names)), "a change changes something"
    assert names[-1] == store.champion() == "r0003"
    assert not list(store.folder.glob(".*.new"))


def test_a_change_waits_for_the_publisher(store: ReleaseStore) -> None:
    impatient = ReleaseStore(store.folder, wait_s=0.0)
    before = contents(store.folder)
    with (store.folder / LOCK_FILE).open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for change in (
            lambda: impatient.set_champion("r0002"),
            impatient.rollback,
            lambda: impatient.prune(1),
        ):
            with pytest.raises(PublishError, match=r"another publisher is at work.*try again"):
                change()
        assert impatient.champion() == "r0001", "reading waits for nobody"
    assert contents(store.folder) == before


def test_a_release_without_checkpoint(store: ReleaseStore) -> None:
    """As releases were before they kept it: served and verified, but not refreshed from."""
    make_release(store.folder, 4, checkpoint=False)
    path = store.path("r0004") / MANIFEST
    plain = json.loads(path.read_text())
    del plain["metrics"]
    path.write_text(json.dumps(plain))
    assert store.verify("r0004").metrics == {}
    with pytest.raises(ContractError, match=r"published without its checkpoint.*export"):
        store.checkpoint("r0004")
    store.set_champion("r0004")
    assert store.champion() == "r0004"


def test_the_checkpoint_of_a_release(store: ReleaseStore) -> None:
    path = store.checkpoint("r0002")
    assert path.read_text() == "weights of r0002"
    path.write_text("weights of another")
    with pytest.raises(DamagedError, match=r"missing or altered; see .* verify r0002"):
        store.checkpoint("r0002")
    path.unlink()
    with pytest.raises(DamagedError, match="missing or altered"):
        store.checkpoint("r0002")


def test_lineage(store: ReleaseStore) -> None:
    steps = store.lineage("r0003")
    assert [(step.name, step.state) for step in steps] == [
        ("r0003", "present"),
        ("r0002", "present"),
        ("r0001", "present"),
    ]
    assert steps[-1].parent is None
    shutil.rmtree(store.path("r0001"))
    assert [step.state for step in store.lineage("r0003")] == ["present", "present", "missing"]
    with pytest.raises(ContractError, match="no release r0001"):
        store.lineage("r0001")


def test_a_lineage_that_cannot_be(store: ReleaseStore) -> None:
    """A manifest that names itself or a child as its parent: no endless walk."""
    for number, parent in ((8, 8), (9, 10)):
        make_release(store.folder, number, parents=Parents(release=f"r{parent:04d}"))
        with pytest.raises(DamagedError, match="allowed: an older one"):
            store.lineage(f"r{number:04d}")
    (store.path("r0002") / MANIFEST).write_text("{")
    with pytest.raises(DamagedError, match="not valid JSON"):
        store.lineage("r0003")


def test_the_record_is_one_that_people_can_read(store: ReleaseStore) -> None:
    assert record_text(store.folder).count("\n") > 5
    assert read_json(store.folder / CHAMPION_FILE, ChampionFile) == store.record()
