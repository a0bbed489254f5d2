"""Experiment manifests: what is read, and what each refusal says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given

from contracts.experiment_metrics import Metric, StoppingRule
from contracts.experiments import Experiment, ceilings, read_experiment, read_experiments
from contracts.reading import ContractError, canonical_json, convert, write_yaml
from tests.contracts.made_experiments import experiment, experiments, weighted

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "experiments"


def plain() -> dict[str, Any]:
    raw: dict[str, Any] = json.loads(canonical_json(read_experiment(FOLDER / "example.yaml")))
    return raw


def test_every_manifest_of_the_repository_is_one() -> None:
    found = read_experiments(FOLDER)
    assert found["example"].state == "draft"


def test_the_example_shows_every_field() -> None:
    """What a person copies must not leave them guessing what else there is."""
    text = yaml.safe_load((FOLDER / "example.yaml").read_text(encoding="utf-8"))
    assert list(text) == [field.encode_name for field in msgspec.structs.fields(Experiment)]
    assert set(text["arms"][1]) == {"name", "release", "weight", "ceiling", "exploration"}
    assert set(text["primary"]) == set(Metric.__struct_fields__)
    assert set(text["stopping"]) == set(StoppingRule.__struct_fields__)


@given(experiments())
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, made: Experiment
) -> None:
    path = tmp_path_factory.mktemp("manifests") / f"{made.name}.yaml"
    write_yaml(path, made)
    assert read_experiment(path) == made


def test_whole_numbers_are_weights() -> None:
    raw = plain()
    raw["arms"][0]["weight"], raw["arms"][1]["weight"] = 1, 0
    assert convert(raw, Experiment, "x").arms[0].weight_grains == 10_000


def arm(index: int, **fields: Any) -> Any:
    def change(raw: dict[str, Any]) -> None:
        raw["arms"][index].update(fields)

    return change


def top(**fields: Any) -> Any:
    def change(raw: dict[str, Any]) -> None:
        raw.update(fields)

    return change


def in_(field: str, /, **fields: Any) -> Any:
    def change(raw: dict[str, Any]) -> None:
        raw[field] = {**raw[field], **fields}

    return change


CLICKS = {"name": "clicks", "kind": "click"}
REFUSED = {
    "sum above": (
        arm(1, weight=0.2),
        r"sum to 1\.1 \(control 0\.9 \+ refreshed 0\.2\); allowed: 1",
    ),
    "sum below": (arm(1, weight=0.0999), r"sum to 0\.9999"),
    "fine weight": (arm(1, weight=0.10001), r"arms\[1\].*weight is 0\.10001.*multiple of 0\.0001"),
    "negative": (arm(1, weight=-0.1), r"weight is -0\.1; allowed: 0 to 1"),
    "infinite": (arm(1, weight=float("inf")), "weight is inf"),
    "NaN": (arm(1, weight=float("nan")), "weight is nan"),
    "text": (arm(1, weight="0.1"), r"field arms\[1\]\.weight: Expected `float`"),
    "true": (arm(1, weight=True), r"field arms\[1\]\.weight: Expected `float`"),
    "below weight": (arm(1, ceiling=0.05), r"refreshed: weight 0\.1 is above its ceiling 0\.05"),
    "control's": (arm(0, ceiling=0.9), "control is the control and states a ceiling"),
    "same name": (arm(1, name="control"), "name control twice"),
    "name": (arm(1, name="New Arm"), r"'New Arm'; allowed: at most 64 lower-case"),
    "name with comma": (arm(1, name="a,b"), "'a,b'; allowed"),
    "name with slash": (top(name="a/b"), "'a/b'; allowed"),
    "empty name": (top(name=""), "''; allowed"),
    "long name": (top(name="a" * 65), "at most 64"),
    "release": (arm(1, release="newest"), "'newest'; allowed: champion, or r and at least four"),
    "path": (arm(1, release="r0001/../x"), "allowed: champion"),
    "one arm": (lambda raw: raw["arms"].pop(), "arms holds 1; allowed: a control and at least one"),
    "no arms": (top(arms=[]), "arms holds 0"),
    "unknown field": (top(weigth=1), "field weigth: unknown"),
    "near field": (arm(1, wieght=1), r"field arms\[1\]\.wieght: unknown \(did you mean weight"),
    "missing": (lambda raw: raw.pop("salt"), "field salt: missing; required:"),
    "salt": (top(salt="a b"), "salt 'a b'; allowed: 1 to 64"),
    "salt of our own": (top(salt=":explore"), "':explore'; allowed"),
    "unit": (top(unit="session"), "field unit: .*'session'; allowed: user, request"),
    "state": (top(state="paused"), "allowed: draft, running, stopped"),
    "running": (top(state="running"), "started is missing"),
    "time": (top(started="yesterday"), "started is 'yesterday'; allowed: such as"),
    "no zone": (top(started="2026-03-01T09:00:00"), "started is"),
    "surfaces": (top(surfaces=["home", "home"]), "surfaces holds 'home' twice"),
    "empty surface": (top(surfaces=[""]), "surfaces holds ''"),
    "share": (arm(1, exploration={"share": 2, "temperature": 1}), "share is 2"),
    "cold": (arm(1, exploration={"share": 0.1, "temperature": 0}), "temperature is 0"),
    "alpha": (in_("stopping", alpha=0), "alpha is 0"),
    "units": (in_("stopping", min_units=0), "min_units is 0"),
    "days": (in_("stopping", max_days=0), "max_days is 0"),
    "mde": (in_("stopping", mde=0), "mde is 0"),
    "kind": (in_("primary", kind="Click!"), "kind 'Click!'; allowed"),
    "better": (in_("primary", better="more"), "field primary.better: .*allowed: higher, lower"),
    "rail": (
        top(guardrails=[{"metric": "errors", "limit": 1}]),
        r"guardrails\[0\].metric: .*'errors'; allowed: .*fallback_share, latency_p99_ms",
    ),
    "limit": (top(guardrails=[{"metric": "fallback_share", "limit": -1}]), "limit is -1"),
    "rail twice": (
        top(guardrails=[{"metric": "fallback_share", "limit": 1}] * 2),
        "guardrails hold the metric fallback_share twice",
    ),
    "two meanings": (
        top(primary=CLICKS, secondary=[{**CLICKS, "per": "item"}]),
        "metric clicks is defined twice, and differently",
    ),
    "metric twice": (top(primary=CLICKS, secondary=[CLICKS]), "hold the metric clicks twice"),
    "reserved": (in_("primary", name="fallback_share"), "is that of a built-in guardrail"),
    "surface that is no text": (top(surfaces=["home\ud800"]), "which is no text"),
    "version": (top(version=2), "field version"),
    "A/A that is none": (top(aa=True), "arms control and refreshed differ; allowed in an A/A"),
    "A/A by mistake": (
        arm(1, release="champion", exploration=None),
        r"control and refreshed are the same \(release champion\); allowed: in an A/A test",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusal_says_what_and_what_is_allowed(name: str) -> None:
    change, words = REFUSED[name]
    raw = plain()
    change(raw)
    with pytest.raises(ContractError, match=words):
        convert(raw, Experiment, "example.yaml")


def test_a_time_without_quotes_is_a_time(tmp_path: Path) -> None:
    """YAML would make a date of it."""
    text = (FOLDER / "example.yaml").read_text()
    file = tmp_path / "example.yaml"
    file.write_text(text.replace("started: null", "started: 2026-03-01T09:00:00+00:00"))
    assert read_experiment(file).started == "2026-03-01T09:00:00+00:00"


def test_an_aa_test_says_so() -> None:
    raw = plain()
    raw["arms"][1].update(release="champion", exploration=None)
    raw["aa"] = True
    assert convert(raw, Experiment, "x").decides_release is False


def test_arms_of_one_release_may_explore_differently() -> None:
    raw = plain()
    raw["arms"][1]["release"] = "champion"
    made = convert(raw, Experiment, "x")
    assert (made.decides_release, made.decides_exploration) == (False, True)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([None], (10_000,)),
        ([None, None], (5_000, 5_000)),
        ([None, None, None], (3_333, 3_333, 3_333)),
        ([2_000, None, None], (2_000, 4_000, 4_000)),
        ([10_000, None], (10_000, 0)),
        ([2_500], (2_500,)),
    ],
)
def test_treatments_share_what_is_left(given: list[int | None], expected: tuple[int, ...]) -> None:
    assert ceilings(weighted([0] * len(given), given)) == expected


def test_a_weight_above_an_equal_share_is_refused() -> None:
    with pytest.raises(ValueError, match=r"t1: weight 0.6 is above its ceiling 0.5 .*state ceil"):
        weighted([6_000, 0])
    assert weighted([6_000, 0], [6_000, None]).arms[1].weight == 0.6


def test_ceilings_above_one_are_refused() -> None:
    with pytest.raises(ValueError, match=r"ceilings of arms sum to 1\.2"):
        weighted([0, 0], [6_000, 6_000])


def test_tenths_sum_exactly() -> None:
    """0.7 + 0.2 + 0.1 is not 1 in floats; in units of 0.0001 it is."""
    assert sum((0.7, 0.2, 0.1)) != 1
    assert [arm.weight for arm in weighted([2_000, 1_000]).arms] == [0.7, 0.2, 0.1]


def test_the_file_is_named_after_the_experiment(tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    write_yaml(path, experiment("one"))
    with pytest.raises(ContractError, match=r"other\.yaml: field name: one; allowed: other"):
        read_experiment(path)


def test_a_folder_that_is_none_and_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no such folder"):
        read_experiments(tmp_path / "none")
    (tmp_path / "bad.yaml").write_text("- not\n- a mapping\n")
    with pytest.raises(ContractError, match=r"bad\.yaml"):
        read_experiments(tmp_path)
