"""Publishing: complete, verified, never over another release, and all or nothing."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from typer.testing import CliRunner

from contracts.champion import CHAMPION_FILE
from contracts.features import FeatureSpec
from contracts.reading import ContractError, read_json, read_yaml, write_json
from contracts.releases import Gate, file_sha256, verify_release
from tests.serving.processes import ROOT, run
from tests.serving.toy_engines import SPEC, write_toy_engines
from training.engines.parity import seeded_rules
from training.publish import app as publish_command
from training.release.engines_folder import ENGINES_FILE, EnginesFile
from training.release.publishing import GateRefusedError, publish
from training.release.release_names import LOCK_FILE, PublishError
from training.release.serving_settings import ServingSettings

HERE = Path(__file__).parent


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def visible(releases: Path) -> list[str]:
    beside = {LOCK_FILE, CHAMPION_FILE}
    return sorted(path.name for path in releases.iterdir() if path.name not in beside)


def test_a_release_is_complete(toy_engines: Path, toy_release: Path) -> None:
    manifest = verify_release(toy_release)
    assert (manifest.name, manifest.list_size, manifest.heads) == ("r0001", 5, 1)
    assert read_yaml(toy_release / "features.yaml", FeatureSpec) == SPEC
    assert manifest.feature_spec_sha256 == SPEC.hash()
    assert manifest.settings["toy"] == {"seed": 0}
    assert manifest.settings["serving"]["max_batch_size"] == 64
    assert len(manifest.gates) == 6
    for engine in manifest.engines:
        served = file_sha256(toy_release / engine.file)
        assert served == file_sha256(toy_engines / f"{engine.part}.pt")
        config = (toy_release / engine.file).parents[1] / "config.pbtxt"
        assert served in config.read_text()
    models = sorted(path.name for path in (toy_release / "repository").iterdir())
    assert models == ["gref_r0001", "gref_r0001_decoder", "gref_r0001_encoder"]
    assert (toy_release / "repository" / "gref_r0001" / "1").is_dir()
    backend = ROOT / "handlers" / "triton_backend.py"
    copy = toy_release / "repository" / "gref_r0001_decoder" / "1" / "model.py"
    assert copy.read_bytes() == backend.read_bytes()


def test_names_count_up_and_nothing_is_overwritten(toy_engines: Path, tmp_path: Path) -> None:
    first = publish(toy_engines, tmp_path / "releases")
    before = contents(first)
    second = publish(toy_engines, tmp_path / "releases", ServingSettings(warmup=False))
    assert (first.name, second.name) == ("r0001", "r0002")
    assert contents(first) == before
    assert not (second / "repository" / "gref_r0002_encoder" / "warmup").exists()
    shutil.rmtree(second)
    assert publish(toy_engines, tmp_path / "releases").name == "r0003", "no name is used twice"


def test_killed_at_every_file_operation(toy_engines: Path, tmp_path: Path) -> None:
    releases = tmp_path / "releases"
    done = run(HERE / "publish_and_die.py", toy_engines, releases)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    killed = [line for line in lines if line["killed"]]
    assert len(killed) > 30, "the operations were not seen"
    published: list[str] = []
    for line in lines:
        # Whatever has a release's name is whole, and no release was lost on the way.
        found = [name for name in line["names"] if name.startswith("r")]
        assert found == line["whole"]
        assert found[: len(published)] == published
        published = found
        # Killed between the name and the crown, the first release stays without it: a person says.
        assert line["champion"] in (None, "r0001")
        assert line["champion"] is None or found
    assert any(".staging-" in name for line in killed for name in line["names"])
    assert published, "the last publisher was not killed"
    assert visible(releases) == published, "what the crashes left behind is cleared away"


def test_two_publishers_at_once(toy_engines: Path, tmp_path: Path) -> None:
    releases = tmp_path / "releases"
    command = [sys.executable, "training/publish.py", "--engines", toy_engines, "--out", releases]
    both = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    told = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(text.split()[1] for text in told) == ["r0001", "r0002"]
    for name in ("r0001", "r0002"):
        assert verify_release(releases / name).name == name


def test_a_publisher_that_may_not_wait_is_told(toy_engines: Path, tmp_path: Path) -> None:
    with (tmp_path / LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(PublishError, match="another publisher is at work"):
            publish(toy_engines, tmp_path, wait_s=0.0)
    assert visible(tmp_path) == []
    assert publish(toy_engines, tmp_path, wait_s=0.0).name == "r0001"


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path | None]:
    """A folder on a file system of 64 KiB; None where none may be mounted."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    yield folder if mounted else None
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)


def test_full_disk(toy_engines: Path, tmp_path: Path, full_disk: Path | None) -> None:
    """Where no small file system can be mounted, a limit on file sizes fails the same writes."""
    releases = full_disk or tmp_path / "releases"
    limit = [] if full_disk else ["--file-bytes", 4096]
    size = sum((toy_engines / f"{part}.pt").stat().st_size for part in ("encoder", "decoder"))
    assert size > 4096
    if full_disk:  # leave room for the configurations, not for the engines
        (releases / "filler").write_bytes(b"0" * max(0, 65536 - size))
    done = run(HERE / "publish_limited.py", toy_engines, releases, *limit)
    assert done.stdout.startswith("refused"), done.stderr
    assert "nothing was published" in done.stdout
    assert ("No space left" if full_disk else "File too large") in done.stdout
    assert [name for name in visible(releases) if name != "filler"] == []
    (releases / "filler").unlink(missing_ok=True)
    if not full_disk:
        assert publish(toy_engines, releases).name == "r0001", "it works once there is room"


@pytest.mark.parametrize("limit", [100, 10_000])
def test_files_cut_short(toy_engines: Path, tmp_path: Path, limit: int) -> None:
    """Writes fail at different files of the release, and each time nothing is left."""
    old = publish(toy_engines, tmp_path)
    before = contents(old)
    done = run(HERE / "publish_limited.py", toy_engines, tmp_path, "--file-bytes", limit)
    assert "refused" in done.stdout, done.stderr
    assert "File too large" in done.stdout
    assert visible(tmp_path) == ["r0001"]
    assert contents(old) == before


def test_read_only_folder(toy_engines: Path) -> None:
    """Root ignores permissions, so there the publisher runs as somebody else."""
    shared = Path(tempfile.mkdtemp())  # pytest's own folders are private
    shared.chmod(0o755)
    shutil.copytree(toy_engines, shared / "engines").chmod(0o755)
    releases = shared / "releases"
    releases.mkdir(mode=0o555)
    try:
        user = ["--user", 65534] if os.geteuid() == 0 else []
        done = run(HERE / "publish_limited.py", shared / "engines", releases, *user)
        assert done.stdout.startswith("refused"), done.stderr
        assert "Permission denied" in done.stdout
        assert "give write access" in done.stdout
        assert list(releases.iterdir()) == []
    finally:
        shutil.rmtree(shared)


def test_a_file_in_place_of_the_folder(toy_engines: Path, tmp_path: Path) -> None:
    (tmp_path / "releases").write_text("not a folder")
    with pytest.raises(PublishError, match="nothing was published"):
        publish(toy_engines, tmp_path / "releases")


@pytest.fixture
def engines(toy_engines: Path, tmp_path: Path) -> Path:
    """A copy of the engines folder, to be damaged."""
    return Path(shutil.copytree(toy_engines, tmp_path / "engines"))


def refuse(engines: Path, cause: str) -> None:
    releases = engines.parent / "releases"
    with pytest.raises(ContractError, match=cause):
        publish(engines, releases)
    assert not releases.exists()


def rewrite(engines: Path, **changes: object) -> None:
    """Change engines.json and bring its hashes up to date."""
    old = read_json(engines / ENGINES_FILE, EnginesFile)
    files = {name: file_sha256(engines / name) for name in old.files}
    write_json(engines / ENGINES_FILE, msgspec.structs.replace(old, files=files, **changes))


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_truncated_engine(engines: Path, part: str) -> None:
    path = engines / f"{part}.pt"
    path.write_bytes(path.read_bytes()[:-100])
    refuse(engines, rf"{part}\.pt: altered or cut short.*export again")
    rewrite(engines)  # even if its hash were right
    refuse(engines, rf"{part}\.pt: not a TorchScript engine")


def test_missing_engine(engines: Path) -> None:
    (engines / "decoder.pt").unlink()
    refuse(engines, r"decoder\.pt: no such file")


def test_swapped_engines(engines: Path) -> None:
    (engines / "encoder.pt").rename(engines / "other.pt")
    (engines / "decoder.pt").rename(engines / "encoder.pt")
    (engines / "other.pt").rename(engines / "decoder.pt")
    rewrite(engines)
    refuse(engines, r"encoder\.pt: does not run")


def test_engines_of_another_spec(engines: Path) -> None:
    text = (engines / "features.yaml").read_text()
    (engines / "features.yaml").write_text(text.replace("buckets: 200", "buckets: 300"))
    refuse(engines, "the engines were made for")


class BrokenEncoder(torch.nn.Module):
    """Forgets to mark padded candidates in PRIOR."""

    def forward(
        self,
        item_cat: torch.Tensor,
        item_dense: torch.Tensor,
        user_cat: torch.Tensor,
        user_dense: torch.Tensor,
        count: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows, padded = item_cat.size(0), item_cat.size(1)
        return torch.zeros(rows, padded, 12), torch.zeros(rows, padded)


class BrokenDecoder(torch.nn.Module):
    """Shows the first item over and over."""

    def forward(
        self,
        z: torch.Tensor,
        prior: torch.Tensor,
        temperature: torch.Tensor,
        seed: torch.Tensor,
        pinned: torch.Tensor,
        group: torch.Tensor,
        limit: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        order = torch.zeros(z.size(0), 5, dtype=torch.int32)
        ones = torch.ones(z.size(0), 1, dtype=torch.int32)
        return order, torch.zeros(z.size(0), 5), ones, 0 * limit


@pytest.mark.parametrize(
    ("part", "module", "cause"),
    [
        ("encoder", BrokenEncoder(), "at a padded candidate; allowed: at most"),
        ("decoder", BrokenDecoder(), "allowed: distinct indices of real candidates"),
    ],
)
def test_engine_that_breaks_the_interface(
    engines: Path, part: str, module: torch.nn.Module, cause: str
) -> None:
    torch.jit.script(module).save(str(engines / f"{part}.pt"))
    rewrite(engines)
    refuse(engines, cause)


def test_gates(engines: Path) -> None:
    good = read_json(engines / ENGINES_FILE, EnginesFile).gates
    bad = Gate(name="ndcg", passed=False, value=0.1, limit=0.2, detail="below the champion")
    rewrite(engines, gates=(*good, bad))
    with pytest.raises(GateRefusedError, match=r"ndcg is 0\.1, limit 0\.2 below the champion"):
        publish(engines, engines.parent / "releases")
    rewrite(engines, gates=good[1:])
    with pytest.raises(GateRefusedError, match=r"not run: parity\.eager\.order"):
        publish(engines, engines.parent / "releases")
    assert not (engines.parent / "releases").exists()


def test_command(engines: Path, tmp_path: Path) -> None:
    done = run("training/publish.py", "--engines", engines, "--out", tmp_path / "releases")
    assert (done.returncode, done.stdout.split()[:2]) == (0, ["published", "r0001"])
    assert "Examples:" in run("training/publish.py", "--help").stdout

    settings = tmp_path / "serving.yaml"
    settings.write_text("intra_op_threads: 2\nwarmup: false\n")
    options = ["--engines", str(engines), "--out", str(tmp_path / "releases")]
    done = command(*options, "--serving", str(settings))
    assert done.exit_code == 0, done.output
    assert verify_release(tmp_path / "releases" / "r0002").settings["serving"]["warmup"] is False

    settings.write_text("threads: 2\n")
    done = command(*options, "--serving", str(settings))
    assert done.exit_code == 2
    assert "field threads: unknown" in done.stderr

    rewrite(engines, gates=(Gate(name="drift", passed=False, value=9, limit=1),))
    done = command(*options)
    assert done.exit_code == 3
    assert "drift is 9, limit 1" in done.stderr

    done = command("--engines", str(tmp_path / "nowhere"))
    assert done.exit_code == 2
    assert "no such file" in done.stderr


def command(*arguments: str) -> Any:
    return CliRunner().invoke(publish_command, arguments)


def test_same_seed_same_engines(tmp_path: Path, toy_engines: Path) -> None:
    """The toy engines are deterministic, so that tests may compare with their eager form."""
    again = write_toy_engines(tmp_path / "again")
    one = torch.jit.load(str(again / "decoder.pt"))
    two = torch.jit.load(str(toy_engines / "decoder.pt"))
    z, prior = torch.randn(2, 8, 12), torch.zeros(2, 8)
    zero = torch.zeros(2, 1), torch.zeros(2, 1, dtype=torch.int64)
    rules = seeded_rules([0, 1], 5, 8)
    assert torch.equal(one(z, prior, *zero, *rules)[0], two(z, prior, *zero, *rules)[0])
