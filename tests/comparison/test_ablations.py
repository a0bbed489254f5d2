"""Ablations: every entry can be trained, and its page says what the figures say."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from contracts.reading import stable_hash
from tests.comparison.stored import case_lists, lists, row
from training import ablate
from training.ablations.ablation import Ablation, Arm, thinned
from training.ablations.entries import ABLATIONS
from training.ablations.report import found_of, write_pages
from training.comparison.cases import CASES, Case
from training.comparison.code_state import code_state
from training.comparison.finals import latest
from training.comparison.gref import Gref
from training.comparison.jobs import plain
from training.comparison.store import Measured, Row, Store

#: Their reference is not the recipe: nothing is distilled in any arm.
PAIRS_ALONE_IN = ("pairs", "alpha-gamma", "debiasing", "beta", "draws", "omtp-loss")


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_arm_is_a_case_and_settings_that_can_be(name: str) -> None:
    ablation = ABLATIONS[name]
    assert ablation.question.endswith(("?", ")"))
    keys, trained = set(), set()
    for base in (CASES[one] for one in ablation.cases):
        assert ablation.fits(base)
        for arm in ablation.arms:
            case = arm.case(base)
            system = arm.system(case)
            (settings,) = system.trials(case, 1)
            keys.add((case.name, system.name))
            trained.add((case.name, arm.stages, stable_hash(settings)))
            assert (case.identity() == base.identity()) == (case.name == base.name)
    # Every arm is a training of its own, whatever the recipe has become.
    assert len(keys) == len(trained) == len(ablation.cases) * len(ablation.arms)


@pytest.mark.parametrize(
    ("name", "is_recipe"),
    [(one.name, one.reference) for one in ABLATIONS.values() if one.name not in PAIRS_ALONE_IN],
)
def test_the_reference_arm_is_the_recipe(name: str, is_recipe: str) -> None:
    """What its label says (H 10, width 48) is what the settings file has."""
    ablation = ABLATIONS[name]
    arm = next(arm for arm in ablation.arms if arm.label == is_recipe)
    for base in (CASES[one] for one in ablation.cases):
        assert arm.system(base).name == ("gref" if arm.stages == "both" else "gref-pre")


def test_arms_with_the_same_settings_share_their_training() -> None:
    case = CASES["fatigue"]
    heads = Gref.defaults(case).model.heads
    one = Arm(label="a", changes={"post_train.beta": 0.7})
    other = Arm(label="b", changes={"post_train.beta": 0.70, "model.heads": heads})
    assert one.system(case).name == other.system(case).name
    assert one.system(case).name != Arm(label="a").system(case).name
    assert Arm(label="a").system(case).name != Arm(label="a", stages="pre").system(case).name


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
            one = stored_arm(arm, CASES["fatigue"], seed, metrics)
            store.add(one, lists(worth + 0.01 * seed), case_lists())
    file, *_ = write_pages(store.folder, tmp_path)
    text = file.read_text()
    assert "the highest true click is that of 'with' (2.4150, 2 seeds)" in text
    assert "Worse than 'with' (p < 0.05, Holm): 'without'." in text
    assert "| without (2) | 2.1150 (" in text, "stored under no code of today's"
    assert "-0.3000 (-0.3304 to -0.2696)" in text  # Welch's t of two seeds each


def test_arms_trained_once_are_compared_by_the_references_seeds(tmp_path: Path) -> None:
    """And where nothing was trained twice, no difference is called one."""
    store = Store(tmp_path / "results")
    recipe, other = ABLATIONS["cross-attention"].arms
    metrics = {"true click": Measured(value=0.4, low=0, high=1, over_given=(0.4, 0, 1))}
    store.add(stored_arm(other, CASES["fatigue"], 1, metrics), lists(0.1), case_lists())
    store.add(stored_arm(recipe, CASES["fatigue"], 1, metrics), lists(0.4), case_lists())
    file, *_ = write_pages(store.folder, tmp_path)
    assert "no difference to 'with' is called one: they reach from -0.300" in file.read_text()
    for seed, worth in ((2, 0.41), (3, 0.42)):
        store.add(stored_arm(recipe, CASES["fatigue"], seed, metrics), lists(worth))
    write_pages(store.folder, tmp_path)
    assert "Worse than 'with' (p < 0.05, Holm): 'without'." in file.read_text()
    assert "1 to 3 seeds; an arm of one is taken to vary" in file.read_text()


def test_an_arm_that_stayed_where_it_began_is_not_called_worse(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    for arm, worth in zip(ABLATIONS["cross-attention"].arms, (0.4, 0.0)):
        for seed in (1, 2):
            metrics = {"true click": Measured(value=worth, low=0, high=1, over_given=(worth, 0, 1))}
            one = stored_arm(arm, CASES["fatigue"], seed, metrics)
            if not worth:
                one = msgspec.structs.replace(one, epoch=0, alarm="a collapse")
            store.add(one, lists(worth), case_lists())
    file, *_ = write_pages(store.folder, tmp_path)
    text = file.read_text()
    assert "An alarm or the judge left the policy as it began: 'without'." in text
    assert "Alarm of 'without': a collapse." in text
    assert "orse than" not in text


def test_rows_of_todays_code_and_slates_have_no_mark(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    for arm, worth in zip(ABLATIONS["cross-attention"].arms, (0.4, 0.1)):
        metrics = {"true click": Measured(value=worth, low=0, high=1, over_given=(worth, 0, 1))}
        case = CASES["fatigue"]
        one = msgspec.structs.replace(
            stored_arm(arm, case, 1, metrics),
            data=case.identity(),
            code=code_state(arm.system(case).code),
        )
        store.add(one, lists(worth), case_lists())
    file, *_ = write_pages(store.folder, tmp_path)
    assert "(2)" not in file.read_text()


def stored_arm(arm: Arm, case: Case, seed: int, metrics: dict[str, Measured]) -> Row:
    system = arm.system(case)
    return msgspec.structs.replace(
        row("gref", seed),
        case=case.name,
        method=system.name,
        settings=plain(system.trials(case, 1)[0]),
        metrics=metrics,
    )


def test_a_page_has_the_untuned_arm_whatever_was_tuned_beside_it(tmp_path: Path) -> None:
    """The reference has the name that compare.py's system has, which may have been tuned."""
    store = Store(tmp_path / "results")
    for arm, worth in zip(ABLATIONS["cross-attention"].arms, (0.4, 0.1)):
        metrics = {"true click": Measured(value=worth, low=0, high=1, over_given=(worth, 0, 1))}
        one = stored_arm(arm, CASES["fatigue"], 1, metrics)
        store.add(one, lists(worth), case_lists())
        tuned = msgspec.structs.replace(one, settings={"post_train": "tuned"}, trials=4)
        if one.method == "gref":
            store.add(tuned, lists(0.9), case_lists())
    file, *_ = write_pages(store.folder, tmp_path)
    assert "| with (2) | 2.4000 (" in file.read_text()
    assert "1 seed: intervals are those of other users" in file.read_text()
    rows = [one for one in store.rows().values() if one.method == "gref"]
    assert [one.trials for one in latest(rows)] == [4], "the comparison's table has the tuned one"


def test_arms_of_the_recipe_before_are_shown_and_not_paired_with_those_of_now(
    tmp_path: Path,
) -> None:
    """A page stays a page when the recipe has moved on, and compares nothing across the move."""
    store = Store(tmp_path / "results")
    recipe, other = ABLATIONS["cross-attention"].arms
    metrics = {"true click": Measured(value=0.4, low=0, high=1, over_given=(0.4, 0, 1))}
    before = [
        msgspec.structs.replace(one, settings={**one.settings, "gone": 1}, code="0ld", trials=1)
        for one in (stored_arm(arm, CASES["fatigue"], 1, metrics) for arm in (recipe, other))
    ]
    for one, worth in zip(before, (0.4, 0.1)):
        store.add(one, lists(worth), case_lists())
    file, *_ = write_pages(store.folder, tmp_path)
    assert "they reach from -0.300" in file.read_text(), "of one recipe, so they pair"
    assert file.read_text().count(" (2) |") == 2
    store.add(stored_arm(recipe, CASES["fatigue"], 1, metrics), lists(0.5), case_lists())
    write_pages(store.folder, tmp_path)
    text = file.read_text()
    assert "| without (2) | 2.1000 (" in text
    assert "No arm is of the reference's code" in text


def test_arms_that_are_one_training_make_no_page(tmp_path: Path) -> None:
    """KuaiRand's recipe searches greedily, and so does the arm 'greedy search'."""
    store = Store(tmp_path / "results")
    metrics = {"true click": Measured(value=0.7, low=0.6, high=0.8, over_given=(0.1, 0, 0.2))}
    case = msgspec.structs.replace(CASES["kuairand-6"], primary="true click")
    recipe = stored_arm(Arm(label=""), case, 1, metrics)
    assert any(
        arm.changes and arm.system(case).name == recipe.method for arm in ABLATIONS["labels"].arms
    )
    store.add(recipe, lists(0.7), case_lists())
    assert write_pages(store.folder, tmp_path, {case.name: case}) == []


def test_an_arm_that_is_the_recipe_of_its_case_is_compared_with_nothing(tmp_path: Path) -> None:
    """Beside others on its page, it would be a difference of .0000 to itself."""
    store = Store(tmp_path / "results")
    metrics = {"true click": Measured(value=0.7, low=0.6, high=0.8, over_given=(0.1, 0, 0.2))}
    case = msgspec.structs.replace(CASES["kuairand-6"], primary="true click")
    recipe = stored_arm(Arm(label=""), case, 1, metrics)
    arms = ABLATIONS["labels"].arms
    other = next(arm for arm in arms if arm.system(case).name != recipe.method)
    store.add(recipe, lists(0.7), case_lists())
    store.add(stored_arm(other, case, 1, metrics), lists(0.6), case_lists())
    found = found_of(store, list(store.rows().values()), ABLATIONS["labels"], case)
    alike = [one for one in found if one.rows[0].method == recipe.method]
    assert len(alike) > 1
    assert all(one.over is None for one in alike)
    assert [one.over is None for one in found if one not in alike] == [False]


def test_shares_of_a_case_have_parts_of_their_own(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    case = thinned(CASES["fatigue"], 0.25)
    for arm, worth in zip(ABLATIONS["cross-attention"].arms, (0.4, 0.1)):
        metrics = {"true click": Measured(value=worth, low=0, high=1, over_given=(worth, 0, 1))}
        store.add(stored_arm(arm, case, 1, metrics), lists(worth), case_lists())
    file, *_ = write_pages(store.folder, tmp_path)
    assert "## `fatigue` with 25% of the train lists" in file.read_text()
    with pytest.raises(ValueError, match="a share already"):
        ABLATIONS["data"].arms[0].case(case)
    assert not ABLATIONS["data"].fits(case)
    assert ABLATIONS["feedback"].arms[1].case(case).share == 0.25, "and its world or utility"


def test_unknown_names_are_refused_with_what_there_is() -> None:
    for arguments, said in (
        (["nonsense"], "no ablation nonsense"),
        (["beta", "--case", "moon"], "--case moon; allowed"),
        (["beta", "--arm", "x"], "--arm x; allowed"),
        ([], "name one ablation"),
        (["beta", "--share", "0"], "--share 0.0; allowed: above 0"),
        (["data", "--share", "0.5", "--case", "fatigue"], "a share already"),
        (["heads", "--case", "kuairand-6"], "--case kuairand-6 needs --kuairand"),
    ):
        result = CliRunner().invoke(ablate.app, arguments, env={"COLUMNS": "1000"})
        assert result.exit_code == 2
        assert said in result.output
    listed = CliRunner().invoke(ablate.app, ["--list"], env={"COLUMNS": "300"})
    assert all(name in listed.output for name in ABLATIONS)


@pytest.mark.parametrize(
    ("name", "label", "opposite"),
    [
        ("heads", "H 1, 30 candidates", "H 10, 30 candidates"),
        ("heads", "H 10, 30 candidates", None),
        ("heads", "H 1, 200 candidates", "H 10, 200 candidates"),
        ("heads", "H 10, 200 candidates", None),
        ("exposure", "pre, random", "both, random"),
        ("exposure", "both, random", None),
        ("data", "10% of the train lists", "100% of the train lists"),
        ("feedback", "watch time", "click"),
    ],
)
def test_an_arm_is_compared_within_its_world(name: str, label: str, opposite: str | None) -> None:
    ablation = ABLATIONS[name]
    found = ablation.opposite(next(arm for arm in ablation.arms if arm.label == label))
    assert (found and found.label) == opposite


def test_a_page_of_several_worlds_answers_for_each(tmp_path: Path) -> None:
    """The reference's seeds are of its own world: of another, one training calls nothing."""
    store = Store(tmp_path / "results")
    asked = {arm.label: arm for arm in ABLATIONS["heads"].arms}
    for label, worth, seeds in (
        ("H 1, 30 candidates", 0.1, (1,)),
        ("H 10, 30 candidates", 0.4, (1, 2, 3)),
        ("H 1, 50 candidates", 0.1, (1,)),
        ("H 10, 50 candidates", 0.4, (1,)),
    ):
        metrics = {"true click": Measured(value=worth, low=0, high=1, over_given=(worth, 0, 1))}
        for seed in seeds:
            case = asked[label].case(CASES["fatigue"])
            one = stored_arm(asked[label], case, seed, metrics)
            store.add(one, lists(worth + 0.001 * seed), case_lists())
    file, *_ = write_pages(store.folder, tmp_path)
    text = file.read_text()
    assert "'H 10, 30 candidates' (2.4020), 'H 10, 50 candidates' (2.4010), each in its" in text
    assert "orse than 'H 10, 30 candidates' of its world (p < 0.05, Holm): 'H 1, 30" in text
    assert "rained once, so no difference to 'H 10, 30 candidates' of its world is called" in text
    assert text.count("'H 1, 50 candidates'") == 1


def test_arms_of_other_slates_are_not_paired(tmp_path: Path) -> None:
    """The same users, but of another state of what makes slates: nothing pairs in silence."""
    store = Store(tmp_path / "results")
    metrics = {"true click": Measured(value=0.4, low=0, high=1, over_given=(0.4, 0, 1))}
    for arm, data in zip(ABLATIONS["cross-attention"].arms, ("a" * 8, "b" * 8)):
        one = msgspec.structs.replace(stored_arm(arm, CASES["fatigue"], 1, metrics), data=data)
        store.add(one, lists(0.4), case_lists())
    file, *_ = write_pages(store.folder, tmp_path)
    assert "No arm is of the reference's code and test lists" in file.read_text()


def test_of_all_ablations_those_are_left_out_that_a_case_cannot_have(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for each in ABLATIONS.values():
        pairs = ablate.pairs_of(each, ["fatigue"], None, None, 0.5, one_of_all=True)
        assert bool(pairs) == each.fits(thinned(CASES["fatigue"], 0.5))
    assert "data: left out on fatigue+share=0.5" in capsys.readouterr().out
    with pytest.raises(ValueError, match="a share already"):
        ablate.pairs_of(ABLATIONS["data"], ["fatigue"], None, None, 0.5)
