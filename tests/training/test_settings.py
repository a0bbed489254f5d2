"""Settings: the committed files, overrides, and values that could only fail later."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.reading import ContractError
from tests.training.runs import ROOT
from training.settings import TrainingSettings, override, read_settings

FILES = sorted((ROOT / "training" / "settings").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_committed_settings_are_valid(file: Path) -> None:
    settings = read_settings(file)
    # The paper's H; in simulated worlds one pass for the whole list (docs/evaluation/decisions.md).
    assert settings.model.heads == (10 if file.stem == "simulator" else 4)
    assert settings.post_train.beta > 0


def test_there_is_a_file_for_each_source() -> None:
    assert {file.stem for file in FILES} >= {"simulator", "kuairand", "avito"}


def test_overrides_reach_the_named_setting_and_no_other() -> None:
    settings = TrainingSettings()
    changed = override(
        settings, {"post_train.pairs.alpha": 2, "seed": 7, "pretrain.optim.learning_rate": "3e-4"}
    )
    assert changed.post_train.pairs.alpha == 2.0
    assert changed.seed == 7
    assert changed.pretrain.optim.learning_rate == 3e-4
    assert changed.model == settings.model
    assert override(changed, {}) == changed
    assert settings == TrainingSettings()


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("sead", r"no setting sead; allowed here: seed, model, pretrain, post_train"),
        ("pretrian.optim.epochs", r"no setting pretrian\.optim\.epochs; allowed.*pretrain"),
        ("pretrain.optin.epochs", r"no setting pretrain\.optin\.epochs; allowed.*optim"),
        ("pretrain.optim.epoch", r"no setting.*epoch; allowed here: epochs, batch_size"),
        ("seed.x", r"no setting seed\.x; seed is a value"),
        ("", r"allowed here: seed"),
        ("model.", r"allowed here: width"),
    ],
)
def test_an_unknown_name_is_answered_with_those_allowed(name: str, cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        override(TrainingSettings(), {name: 1})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model.width", "wide"),
        ("model.width", 30),  # four attention heads do not divide it
        ("model.heads", 0),
        ("model.heads", 17),
        ("model.feed_forward", 0),
        ("model.dropout", 1.0),
        ("model.prior", "positions"),
        ("model", 3),
        ("pretrain.optim.batch_size", 0),
        ("pretrain.optim.learning_rate", 0),
        ("pretrain.optim.learning_rate", float("nan")),
        ("pretrain.optim.learning_rate", float("inf")),
        ("pretrain.optim.weight_decay", -1),
        ("pretrain.optim.clip_norm", 0),
        ("pretrain.optim.warm_up_steps", -1),
        ("pretrain.optim.patience", -1),
        ("pretrain.given_epochs", -1),
        ("pretrain.lambda_n", -1),
        ("pretrain.lambda_o", float("nan")),
        ("pretrain.lambda_pointwise", -0.1),
        ("pretrain.max_permutations", 1),  # one permutation has nothing to be compared with
        ("post_train.beta", 0),
        ("post_train.beta", float("nan")),
        ("post_train.label_smoothing", 0.5),
        ("post_train.likelihood_weight", -1),
        ("post_train.collapse_nats", 0),
        ("post_train.collapse_nats", float("nan")),  # an alarm that could never fire
        ("post_train.pairs.source", "policies"),
        ("post_train.pairs.alpha", float("inf")),
        ("post_train.pairs.draws", 0),
        ("post_train.pairs.draws", 64),  # seeds of neighbouring slates would meet
        ("post_train.pairs.temperature", 0),  # every draw the greedy list: no pair at all
        ("post_train.pairs.margin", -0.1),
        ("post_train.pairs.mix", 1.0),  # no policy pair would be left
        ("post_train.pairs.beam", 0),
        ("post_train.pairs.beam", 17),
        ("post_train.pairs.evaluator.labellers", 65),
        ("post_train.pairs.evaluator.other_kinds", -0.1),
        ("post_train.dpo_epochs", -1),
        ("post_train.dpo", 0),  # with nothing distilled
        ("post_train.distil", -1),
        ("post_train.distil_temperature", 0),
        ("post_train.max_kl", -1),
        ("post_train.max_optimism", float("nan")),
        ("post_train.pairs.evaluator.labellers", 0),
        ("post_train.pairs.evaluator.judge_share", 1.0),
        ("post_train.pairs.evaluator.width", 50),
        ("post_train.pairs.evaluator.dropout", 1.0),
        ("seed", 1.5),
        ("seed", -1),
    ],
)
def test_a_value_that_could_only_fail_later_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        override(TrainingSettings(), {name: value})
    assert name.rpartition(".")[2] in str(caught.value)


def test_a_settings_file_is_read_strictly(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("post_train: {betta: 0.1}\n")
    with pytest.raises(ContractError, match=r"mine\.yaml.*betta.*did you mean beta"):
        read_settings(file)
    file.write_text("post_train: {beta: -1}\n")
    with pytest.raises(ContractError, match=r"mine\.yaml.*beta must be above 0"):
        read_settings(file)
