"""Mistakes on the command line that once passed in silence, or ended in a traceback."""

from __future__ import annotations

import fcntl
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.training.runs import run
from training import evaluate, export, post_train, pretrain
from training.checkpoint import load_checkpoint, load_tensors, save_atomically


@contextmanager
def full_disk() -> Iterator[None]:
    """A file may hold 4 KiB, as on a disk with no more room (Python ignores SIGXFSZ).

    Only around the call under test: what pytest itself prints may go to a larger file.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("names", [("a", "a"), ("given order",), ("greedy oracle",)])
def test_a_policy_never_takes_the_place_of_another(
    tiny_data: Path, tiny_policy: Path, names: tuple[str, ...]
) -> None:
    named = [word for name in names for word in ("--policy", f"{name}={tiny_policy}")]
    result = run(evaluate.app, "--data", tiny_data, *named)
    assert result.exit_code == 2
    assert "is taken" in result.output


def test_a_second_run_keeps_out_of_a_folder_in_use(tiny_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pretrain"
    folder.mkdir()
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = run(pretrain.app, "--data", tiny_data, "--out", tmp_path)
    assert result.exit_code == 2
    assert "another run is at work" in result.output
    assert not (folder / "state.pt").exists()


def test_a_model_larger_than_the_memory(tiny_data: Path, tmp_path: Path) -> None:
    changes = ("--set", "model.width=1000000000")
    result = run(pretrain.app, "--data", tiny_data, "--out", tmp_path, *changes)
    assert result.exit_code == 2
    assert "out of memory" in result.output


def test_the_record_of_a_post_trained_policy_is_how_it_was_made(
    tiny_data: Path, tiny_policy: Path, tmp_path: Path
) -> None:
    """Model and pre-training are the checkpoint's, whatever the command's settings say."""
    words = ("--data", tiny_data, "--checkpoint", tiny_policy, "--out", tmp_path)
    changes = ("post_train.pairs.source=exposure", "post_train.optim.epochs=0")
    changes += ("pretrain.lambda_o=0.7", "model.width=32")
    named = [word for text in changes for word in ("--set", text)]
    assert run(post_train.app, *words, *named).exit_code == 0
    made, begun = (
        load_checkpoint(path) for path in (tmp_path / "post_train" / "best.pt", tiny_policy)
    )
    assert (made.settings.model, made.settings.pretrain) == (
        begun.settings.model,
        begun.settings.pretrain,
    )
    assert made.settings.post_train.pairs.source == "exposure"


def test_an_export_that_fails_leaves_the_engines_before_it(
    tiny_data: Path, tiny_policy: Path, tmp_path: Path
) -> None:
    out = tmp_path / "engines"
    words = ("--checkpoint", tiny_policy, "--data", tiny_data, "--requests", "2", "--out", out)
    assert run(export.app, *words).exit_code == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert run(export.app, *words, "--tolerance", "nan").exit_code == 2
    with full_disk():
        result = run(export.app, *words)
    assert result.exit_code == 2
    assert "cannot be written" in result.output
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["engines"]


def test_a_full_disk_leaves_the_old_state(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    save_atomically(path, {"epoch": 1})
    with pytest.raises(OSError, match=r"cannot be written.*state\.pt"), full_disk():
        save_atomically(path, {"epoch": 2, "filler": "x" * 10_000})
    assert load_tensors(path) == {"epoch": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["state.pt"]
