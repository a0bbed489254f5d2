"""What a refresh is given wrong: exit code 2, what is wrong and what to do, and nothing changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from contracts.champion import CHAMPION_FILE
from contracts.reading import read_json, write_json
from contracts.releases import MANIFEST, ReleaseManifest
from contracts.slates import Slate
from tests.refresh.refreshes import place, refreshed, table_of, tree
from tests.refresh.traffic import append
from training.checkpoint import Checkpoint

pytestmark = pytest.mark.timeout(120)


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_a_table_of_another_feature_spec(
    releases: Path, slates: list[Slate], champion: Checkpoint, tmp_path: Path
) -> None:
    other = msgspec.structs.replace(champion.spec, candidate_buckets=(64,))
    append(tmp_path / "table", slates[:50], other)
    where = place(tmp_path / "home", releases, tmp_path / "table")
    before = tree(where.releases)
    wrong = refreshed(where)
    assert wrong.code == 2
    assert other.hash() in one_line(wrong.output)
    assert champion.spec.hash() in one_line(wrong.output)
    after = tree(where.releases)
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("options", [("--dry-run",), ()])
def test_a_champion_that_is_missing_or_damaged(
    options: tuple[str, ...], releases: Path, table: Path, tmp_path: Path
) -> None:
    where = place(tmp_path / "missing", releases, table)
    (where.releases / CHAMPION_FILE).unlink()
    missing = refreshed(where, *options)
    assert missing.code == 2
    assert "no champion" in one_line(missing.output)

    where = place(tmp_path / "damaged", releases, table)
    file = where.releases / "r0001" / "checkpoint.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    damaged = refreshed(where, *options)
    assert damaged.code == 2
    assert "checkpoint.pt was altered" in one_line(damaged.output)
    assert "rollback" in damaged.output

    where = place(tmp_path / "gone", releases, table)
    shutil.rmtree(where.releases / "r0001")
    gone = refreshed(where, *options)
    assert gone.code == 2
    assert "r0001" in gone.output


@pytest.mark.parametrize("options", [("--dry-run",), ()])
def test_a_champion_whose_engines_cannot_be_built_here(
    options: tuple[str, ...], releases: Path, table: Path, tmp_path: Path
) -> None:
    """Said before anything is trained."""
    where = place(tmp_path, releases, table)
    file = where.releases / "r0001" / MANIFEST
    manifest = read_json(file, ReleaseManifest)
    compiled = {"format": "aotinductor", "versions": {"cpu": "another", "torch": "1.0.0"}}
    engines = tuple(msgspec.structs.replace(one, **compiled) for one in manifest.engines)
    write_json(file, msgspec.structs.replace(manifest, engines=engines))
    before = tree(where.releases)
    wrong = refreshed(where, *options)
    assert wrong.code == 2
    assert "no engines like the champion's (r0001) can be built here" in one_line(wrong.output)
    assert "a CPU with another: AOTInductor compiles for this machine" in one_line(wrong.output)
    after = tree(where.releases)
    assert {name: after[name] for name in before} == before


def test_no_table(releases: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    wrong = refreshed(place(tmp_path, releases, tmp_path / "empty"))
    assert wrong.code == 2
    assert "no Delta table" in one_line(wrong.output)


def test_versions_that_are_not_there(releases: Path, table: Path, tmp_path: Path) -> None:
    where = place(tmp_path, releases, table)
    for option in ("--until-version", "--since-version"):
        wrong = refreshed(where, option, 9)
        assert wrong.code == 2
        assert "has versions 0 to 3" in one_line(wrong.output)


def test_settings_and_options(releases: Path, table: Path, tmp_path: Path) -> None:
    where = place(tmp_path, releases, table)
    for change, told in (
        ("gates.max_drift=-1", "max_drift is -1"),
        ("gates.max_drifft=1", "no setting gates.max_drifft"),
        ("examination=estimated", "policy pairs"),
        ("split.test=0.95", "below 1 together"),
    ):
        wrong = refreshed(where, changes=[change])
        assert wrong.code == 2
        assert told in one_line(wrong.output)
    wrong = refreshed(where, "--storage-option", "nonsense")
    assert wrong.code == 2
    assert "KEY=VALUE" in wrong.output
    assert refreshed(where, "--releases", tmp_path / "nowhere").code == 2


def test_slates_that_the_model_cannot_take_are_counted_and_refused_beyond_a_share(
    releases: Path, slates: list[Slate], champion: Checkpoint, tmp_path: Path
) -> None:
    def broken(slate: Slate) -> Slate:
        first = msgspec.structs.replace(slate.candidates[0], score=float("nan"))
        return msgspec.structs.replace(slate, candidates=(first, *slate.candidates[1:]))

    odd = [broken(slate) if number % 10 == 0 else slate for number, slate in enumerate(slates)]
    where = place(tmp_path, releases, table_of(tmp_path / "table", odd, champion))
    dry = refreshed(where, "--dry-run")
    assert dry.summary["slates"] == 1350
    assert dry.failed() == {"data.dropped"}
    assert refreshed(where).code == 3


def test_a_request_that_is_there_twice(
    releases: Path, slates: list[Slate], champion: Checkpoint, tmp_path: Path
) -> None:
    where = place(tmp_path, releases, table_of(tmp_path / "table", [*slates, slates[7]], champion))
    dry = refreshed(where, "--dry-run")
    assert dry.summary["slates"] == 1500
    assert dry.failed() == {"data.duplicates"}
