"""Pre-training is done once for the systems that share it, and counts in the cost of each."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch

from training.comparison import gref
from training.comparison.cases import CASES, slates_of
from training.comparison.gref import Gref, GrefLists
from training.comparison.running import slates_in
from training.comparison.system import Slates, Trained

SMALL = msgspec.structs.replace(CASES["tiny"], lists=500)


@pytest.fixture(scope="module")
def slates(tmp_path_factory: pytest.TempPathFactory) -> Slates:
    return slates_in(slates_of(SMALL, tmp_path_factory.mktemp("work"), None))


def fit(slates: Slates, folder: Path, seed: int = 1, **changes: object) -> Trained:
    system = Gref("gref-pre", "", {f"pretrain.{k}": v for k, v in changes.items()}, ("pretrain",))
    (settings,) = system.trials(SMALL, 1)
    return system.fit(slates, settings, seed, folder)


def weights(trained: Trained) -> torch.Tensor:
    assert isinstance(trained.fitted, GrefLists)
    return torch.cat([value.flatten() for value in trained.fitted.model.state_dict().values()])


def test_the_second_takes_what_the_first_has_made(
    slates: Slates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fit(slates, tmp_path / "one")
    assert first.saved_seconds == 0
    steps = []
    real = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda *a, **k: (steps.append(1), real(*a, **k))[1]
    )
    second = fit(slates, tmp_path / "two")
    assert not steps, "nothing is trained again"
    assert second.saved_seconds > 0, "yet its cost is that of the whole"
    assert torch.equal(weights(first), weights(second))
    assert second.fitted.epochs == first.fitted.epochs
    # Another seed or another setting is another policy.
    others = fit(slates, tmp_path / "three", seed=2), fit(slates, tmp_path / "four", lambda_o=1.0)
    assert steps
    assert all(one.saved_seconds == 0 for one in others)
    assert not any(torch.equal(weights(one), weights(first)) for one in others)


def test_one_that_was_killed_is_gone_on_with(
    slates: Slates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves no seconds behind: what it had spent is not known, and nothing is made up."""

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(gref, "pretrain", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(slates, tmp_path / "one", seed=3)
    assert fit(slates, tmp_path / "two", seed=3).saved_seconds == 0
    assert fit(slates, tmp_path / "three", seed=3).saved_seconds > 0
