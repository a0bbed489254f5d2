"""Checkpoints: what is saved comes back, and what is damaged is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from contracts.reading import ContractError
from tests.model.tiny import SPEC, lively_model, model_settings
from tests.training.runs import assert_same_weights
from training.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_tensors,
    save_atomically,
    save_checkpoint,
    weights_sha256,
)
from training.settings import TrainingSettings


def made(**changes: Any) -> Checkpoint:
    parts: dict[str, Any] = {
        "spec": SPEC,
        "settings": TrainingSettings(model=model_settings(heads=4), seed=3),
        "stage": "pretrain",
        "weights": lively_model(4).state_dict(),
        "data": {"dataset": "made", "fingerprint": "f"},
        "parents": {"anchor": "a"},
        "scores": {"ndcg": 0.5},
    }
    return Checkpoint(**{**parts, **changes})


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    checkpoint = made()
    save_checkpoint(tmp_path / "run" / "best.pt", checkpoint)
    again = load_checkpoint(tmp_path / "run" / "best.pt")
    assert_same_weights(again, checkpoint)
    for name in ("spec", "settings", "stage", "data", "parents", "scores"):
        assert getattr(again, name) == getattr(checkpoint, name)
    model = again.model()
    assert not model.training
    assert weights_sha256(model.state_dict()) == weights_sha256(lively_model(4).state_dict())
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["best.pt"]


def test_a_hash_of_weights_sees_names_shapes_and_values() -> None:
    first = {"a": torch.arange(6.0), "b": torch.zeros(2)}
    assert weights_sha256(first) == weights_sha256(dict(reversed(first.items())))
    others = [
        {"a": torch.arange(6.0), "c": torch.zeros(2)},
        {"a": torch.arange(6.0).view(2, 3), "b": torch.zeros(2)},
        {"a": torch.arange(6.0).double(), "b": torch.zeros(2)},
        {"a": torch.arange(6.0) + 1e-6, "b": torch.zeros(2)},
        {"a": torch.arange(6.0)},
    ]
    assert len({weights_sha256(one) for one in [first, *others]}) == 6


@pytest.mark.parametrize("part", [0.0, 0.3, 0.7, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, part: float) -> None:
    file = tmp_path / "best.pt"
    save_checkpoint(file, made())
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ContractError, match=r"best\.pt: damaged, or not a checkpoint"):
        load_checkpoint(file)


@pytest.mark.parametrize("name", ["encoder.item.tables.0.weight", "decoder.query.weight"])
def test_a_flipped_bit_in_the_weights_is_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / "best.pt"
    save_checkpoint(file, made())
    data = bytearray(file.read_bytes())
    place = data.find(lively_model(4).state_dict()[name].numpy().tobytes())
    assert place > 0
    data[place + 5] ^= 0x10
    file.write_bytes(bytes(data))
    with pytest.raises(ContractError, match=r"best\.pt: damaged: wrong checksum"):
        load_checkpoint(file)


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"none\.pt: no such checkpoint"):
        load_checkpoint(tmp_path / "none.pt")
    for number, content in enumerate(([1, 2], {"weights": {}}, torch.zeros(2), 7)):
        file = tmp_path / f"{number}.pt"
        torch.save(content, file)
        with pytest.raises(ContractError, match=rf"{number}\.pt: not a checkpoint"):
            load_checkpoint(file)


class Surprise:
    """Runs a command when it is unpickled without care."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("surprise",)


def test_a_checkpoint_can_carry_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weights": Surprise()}, tmp_path / "best.pt")
    with pytest.raises(ContractError, match="damaged, or not a checkpoint"):
        load_checkpoint(tmp_path / "best.pt")
    assert not (tmp_path / "surprise").exists()


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"settings": {"model": {"width": 30}}}, "settings.*attention_heads"),
        ({"settings": {"modle": {}}}, "settings.*modle"),
        ({"spec": {"version": 2}}, "spec"),
        ({"weights": [1]}, "weights"),
    ],
)
def test_contents_that_break_the_contract_are_refused(
    tmp_path: Path, change: dict[str, Any], cause: str
) -> None:
    file = tmp_path / "best.pt"
    save_checkpoint(file, made())
    torch.save({**load_tensors(file), **change}, file)
    with pytest.raises(ContractError, match=cause):
        load_checkpoint(file)


def test_weights_of_another_model_are_refused() -> None:
    with pytest.raises(ContractError, match=r"weights do not fit.*decoder\.query"):
        made(weights=lively_model(2).state_dict()).model()


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "state.pt"
    save_atomically(file, {"epoch": 1})
    with pytest.raises(Exception, match="pickle"):
        save_atomically(file, {"epoch": 2, "odd": lambda: None})
    assert load_tensors(file) == {"epoch": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["state.pt"]


def test_a_file_that_someone_reads_is_replaced_and_not_rewritten(tmp_path: Path) -> None:
    """Whoever has the old one open keeps it whole: the new one takes its name."""
    file, held = tmp_path / "state.pt", tmp_path / "held.pt"
    save_atomically(file, {"epoch": 1})
    held.hardlink_to(file)
    save_atomically(file, {"epoch": 2})
    assert load_tensors(held) == {"epoch": 1}
    assert load_tensors(file) == {"epoch": 2}
