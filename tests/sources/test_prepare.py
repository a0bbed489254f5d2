"""The command: what it writes, prints and refuses."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from contracts.datasets import read_dataset
from contracts.reading import write_yaml
from tests.sources import avito_files
from tests.sources import kuairand_files as kuairand_made
from tests.sources.test_kuairand import EARLY_DAYS
from tests.sources.test_world import TINY
from training.prepare import app
from training.sources.world import World, WorldSettings

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_as_a_script_from_the_root(tmp_path: Path) -> None:
    command = [sys.executable, "training/prepare.py", "--source", "simulator", "--lists", "300"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "slates")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "simulated" in done.stdout
    dataset, spec = read_dataset(tmp_path / "slates")
    assert dataset.splits["train"].lists == 240
    assert spec.list_size == 10
    # The dataset alone is enough to rebuild the world, and its truth.
    assert World(WorldSettings(**dataset.settings["world"])).settings.fatigue == 0.8


def test_world_of_a_file_and_list_size(tmp_path: Path) -> None:
    write_yaml(tmp_path / "world.yaml", TINY)
    arguments = ["--source", "simulator", "--world", tmp_path / "world.yaml", "--lists", "50"]
    done = run(*arguments, "--list-size", "4", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    dataset, spec = read_dataset(tmp_path / "out")
    assert spec.list_size == 4
    assert dataset.settings["world"]["items"] == TINY.items
    assert "true_clicks/greedy_oracle" in dataset.facts


def test_seed_and_shuffling_change_what_they_say(tmp_path: Path) -> None:
    write_yaml(tmp_path / "world.yaml", TINY)
    arguments = ["--source", "simulator", "--world", tmp_path / "world.yaml", "--lists", "50"]
    prints = {}
    for name, more in {
        "one": [],
        "same": [],
        "seed": ["--seed", "2"],
        "shuffled": ["--shuffle-feedback"],
    }.items():
        done = run(*arguments, *more, "--out", tmp_path / name)
        assert done.exit_code == 0, done.output
        prints[name] = read_dataset(tmp_path / name)[0]
    assert prints["one"] == prints["same"]
    assert prints["one"].fingerprint != prints["seed"].fingerprint
    assert prints["shuffled"].shuffled_feedback
    assert not prints["one"].shuffled_feedback


def test_kuairand(tmp_path: Path) -> None:
    folder = kuairand_made.write(
        tmp_path / "in", kuairand_made.log_rows(users=40, days=EARLY_DAYS), users=40
    )
    done = run("--source", "kuairand", "--input", folder, "--list-size", "4",
               "--out", tmp_path / "out")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "kept: exposures of the earlier slice" in done.output
    assert "dropped: exposure in a list without a long view" in done.output
    dataset, spec = read_dataset(tmp_path / "out")
    assert dataset.splits["test"].lists == dataset.splits["test"].with_utility > 50
    vocabularies = {one.name: one.vocabulary for one in spec.item.categorical}
    assert vocabularies["upload_type"] == ("Web",)


def test_avito(tmp_path: Path) -> None:
    days = ["2015-05-02 08:00:00.0"] * 8 + ["2015-05-17 08:00:00.0"] + ["2015-05-19 08:00:00.0"]
    stream = [row for n in range(10) for row in avito_files.search(n, avito_files.page(100, n % 2))]
    folder = avito_files.write(
        tmp_path / "in", stream, [avito_files.info(n, day) for n, day in enumerate(days)]
    )
    done = run("--source", "avito", "--input", folder, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    dataset, _ = read_dataset(tmp_path / "out")
    assert [counts.lists for counts in dataset.splits.values()] == [8, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--source", "kuairand"], "needs --input"),
        (["--source", "kuairand", "--input", "nowhere"], "nowhere: no such folder"),
        (["--source", "avito", "--input", "."], "no file trainSearchStream*.tsv"),
        (["--source", "simulator", "--valid-from", "2022-05-01"], "--valid-from is not for"),
        (["--source", "simulator", "--world", "calm"], "calm: no such file"),
        (["--source", "simulator", "--list-size", "40"], "candidates is 30"),
        (["--source", "simulator", "--lists", "0"], "lists"),
        (["--source", "elsewhere"], "elsewhere"),
        (["--source", "kuairand", "--input", ".", "--test-from", "never"], "'never' is not a day"),
    ],
)
def test_bad_input_is_exit_code_2(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = run(*arguments, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
    assert list(tmp_path.iterdir()) == []


def test_an_existing_dataset_needs_force(tmp_path: Path) -> None:
    write_yaml(tmp_path / "world.yaml", TINY)
    arguments = ["--source", "simulator", "--world", tmp_path / "world.yaml", "--lists", "20"]
    out = tmp_path / "out"
    assert run(*arguments, "--out", out).exit_code == 0
    refused = run(*arguments, "--out", out)
    assert refused.exit_code == 2
    assert "--force" in refused.output
    assert run(*arguments, "--out", out, "--force").exit_code == 0
    (out / "dataset.json").write_text("{}")
    assert run(*arguments, "--out", out, "--force").exit_code == 2


def test_a_place_that_cannot_be_made(tmp_path: Path) -> None:
    """A path through a file; what stands there is not touched."""
    (tmp_path / "file").write_text("x")
    done = run("--source", "simulator", "--lists", "20", "--out", tmp_path / "file" / "out")
    assert done.exit_code == 2
    assert "cannot be written" in done.output
    assert (tmp_path / "file").read_text() == "x"


def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    """No file may grow beyond 100 kB: the write fails half-way, and nothing is left of it."""

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    command = [sys.executable, "training/prepare.py", "--source", "simulator", "--lists", "3000"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "slates")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=small_files,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 2, done.stderr
    assert "cannot be written" in done.stderr
    assert list(tmp_path.iterdir()) == []
