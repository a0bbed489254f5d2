"""Ablations: every entry can be trained, and its page says what the figures say."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from tests.comparison.stored import case_lists, lists, row
from training import ablate
from training.ablations.ablation import Ablation, Arm
from training.ablations.entries import ABLATIONS
from training.ablations.report import write_pages
from training.comparison.cases import CASES
from training.comparison.store import Measured, Store


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_arm_is_a_case_and_settings_that_can_be(name: str) -> None:
    ablation = ABLATIONS[name]
    assert ablation.question.endswith(("?", ")"))
    keys = set()
    for base in (CASES[one] for one in ablation.cases):
        assert ablation.fits(base)
        for arm in ablation.arms:
            case, system = arm.case(base), arm.system()
            (settings,) = system.trials(case, 1)
            keys.add((case.name, system.name))
            assert (case.identity() == base.identity()) == (case.name == base.name)
            assert settings is not None
    # Arms differ, but where an arm is the recipe itself said in full (heads: 4).
    assert len(keys) == len(ablation.cases) * len(ablation.arms)


def test_arms_with_the_same_settings_share_their_training() -> None:
    one = Arm(label="a", changes={"post_train.beta": 0.1})
    other = Arm(label="b", changes={"post_train.beta": 0.10})
    assert one.system().name == other.system().name
    assert Arm(label="a").system().name != Arm(label="a", stages="pre").system().name


def test_a_reference_must_be_one_of_the_arms() -> None:
    with pytest.raises(ValueError, match="labels must differ"):
        Ablation(name="x", question="?", cases=(), arms=(Arm(label="a"),), reference="b")


def test_real_logs_have_no_world_to_change() -> None:
    assert not ABLATIONS["heads"].fits(CASES["kuairand-6"])
    assert ABLATIONS["data"].fits(CASES["kuairand-6"])


def test_a_page_answers_from_its_figures(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    ablation = ABLATIONS["cross-attention"]
    for arm, worth in zip(ablation.arms, (0.4, 0.1)):
        for seed in (1, 2):
            metrics = {"true click": Measured(value=worth, low=0, high=1, over_given=(worth, 0, 1))}
            one = msgspec.structs.replace(
                row("gref", seed), method=arm.system().name, metrics=metrics
            )
            store.add(one, lists(worth + 0.01 * seed), case_lists())
    (file,) = write_pages(store.folder, tmp_path)
    text = file.read_text()
    assert "the highest true click is that of 'with'" in text
    assert "Worse than 'with' by more than the interval: 'without'." in text
    assert "| without | 2.1150 (" in text
    assert "-0.3000 (-0.3100 to -0.2900)" in text


def test_unknown_names_are_refused_with_what_there_is() -> None:
    for arguments, said in (
        (["nonsense"], "no ablation nonsense"),
        (["beta", "--case", "moon"], "--case moon; allowed"),
        (["beta", "--arm", "x"], "--arm x; allowed"),
        ([], "name one ablation"),
    ):
        result = CliRunner().invoke(ablate.app, arguments, env={"COLUMNS": "1000"})
        assert result.exit_code == 2
        assert said in result.output
    listed = CliRunner().invoke(ablate.app, ["--list"], env={"COLUMNS": "300"})
    assert all(name in listed.output for name in ABLATIONS)
