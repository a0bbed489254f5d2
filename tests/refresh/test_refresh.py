"""The command from a real table to a real store: publish, refuse, nothing to do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from contracts.releases import verify_release
from contracts.slates import Slate
from tests.refresh.refreshes import Place, place, refreshed, table_of, tree
from tests.refresh.traffic import append, show_lists, shown_items, traffic, with_feedback
from training.checkpoint import Checkpoint, load_checkpoint, weights_sha256
from training.release.store import ReleaseStore
from training.sources.world import KINDS, World

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def published(
    releases: Path, table: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Place, dict[str, object]]:
    """The good slates, refreshed once."""
    where = place(tmp_path_factory.mktemp("published"), releases, table)
    done = refreshed(where)
    assert done.code == 0, done.output
    return where, done.summary


def test_good_slates_become_a_release(
    published: tuple[Place, dict[str, object]], champion: Checkpoint
) -> None:
    where, summary = published
    assert (summary["outcome"], summary["release"], summary["champion"]) == (
        "published",
        "r0002",
        "r0001",
    )
    assert summary["versions"] == [0, 3]
    assert summary["slates"] == 1500
    manifest = verify_release(where.releases / "r0002")
    assert manifest.parents.release == "r0001"
    assert manifest.parents.reference_sha256 == weights_sha256(champion.weights)
    assert (manifest.data.first_version, manifest.data.last_version) == (0, 3)
    assert manifest.settings["refresh"]["facts"]["slates"] == 1500
    assert {gate["name"] for gate in summary["gates"]} == {gate.name for gate in manifest.gates}  # type: ignore[union-attr]
    assert ReleaseStore(where.releases).champion() == "r0001"  # nobody said --promote
    assert sorted(path.name for path in where.repository.glob("gref*")) == [
        "gref_r0002",
        "gref_r0002_decoder",
        "gref_r0002_encoder",
    ]
    assert not (where.releases / ".refresh").exists()


def test_the_release_is_truly_better(
    published: tuple[Place, dict[str, object]], world: World, champion: Checkpoint
) -> None:
    where, _ = published
    candidate = load_checkpoint(where.releases / "r0002" / "checkpoint.pt")
    requests, before = show_lists(world, champion, 2000, seed=50)
    _, after = show_lists(world, candidate, 2000, seed=50)
    clicks = [
        world.expected("click", requests.users, shown_items(requests, lists)).sum(axis=1)
        for lists in (before, after)
    ]
    gain = clicks[1] - clicks[0]
    assert gain.mean() > 1.96 * gain.std() / len(gain) ** 0.5


def test_the_report_is_kept_and_names_every_gate(
    published: tuple[Place, dict[str, object]],
) -> None:
    where, summary = published
    report = where.releases / "r0002" / "report"
    assert Path(str(summary["report"])) == report
    text = (report / "report.md").read_text()
    for gate in summary["gates"]:  # type: ignore[attr-defined]
        assert f"`{gate['name']}`" in text
    for heading in ("What went in", "Training", "Off-policy", "Drift and lineage", "do next"):
        assert heading in text
    for picture in ("curves.png", "differences.png", "positions.png"):
        assert (report / picture).read_bytes()[:4] == b"\x89PNG"
        assert f"({picture})" in text


def test_the_same_input_again_does_nothing(published: tuple[Place, dict[str, object]]) -> None:
    where, summary = published
    before = tree(where.home)
    again = refreshed(where)
    assert again.code == 0
    assert (again.summary["outcome"], again.summary["release"]) == ("unchanged", "r0002")
    assert again.summary["identity"] == summary["identity"]
    assert {**tree(where.home), "releases/.refresh.lock": ""} == {
        **before,
        "releases/.refresh.lock": "",
    }


def test_promoted_afterwards_and_then_nothing_is_new(
    published: tuple[Place, dict[str, object]], tmp_path: Path
) -> None:
    where = place(tmp_path, published[0].releases, published[0].table)
    told = tmp_path / "refresh.prom"
    promoted = refreshed(where, "--promote", "--metrics-file", told)
    assert '\ngref_refresh_champion_info{release="r0002"} 1.0\n' in told.read_text()
    assert (promoted.code, promoted.summary["promoted"]) == (0, True)
    assert ReleaseStore(where.releases).champion() == "r0002"
    again = refreshed(where)
    assert (again.code, again.summary["outcome"]) == (0, "unchanged")
    assert (again.summary["champion"], again.summary["versions"]) == ("r0002", None)


def test_the_next_refresh_reads_what_came_since(
    published: tuple[Place, dict[str, object]],
    tmp_path: Path,
    world: World,
    champion: Checkpoint,
    slates: list[Slate],
) -> None:
    table = tmp_path / "table"
    for first in range(0, 1500, 500):
        append(table, slates[first : first + 500], champion.spec)
    where = place(tmp_path / "home", published[0].releases, table)
    ReleaseStore(where.releases).set_champion("r0002")
    # Another table than the one r0002 has seen: all of it is new.
    dry = refreshed(where, "--dry-run")
    assert dry.summary["versions"] == [0, 3]
    own = replace(where, table=published[0].table)
    assert refreshed(own, "--dry-run").summary["versions"] is None
    since = refreshed(own, "--dry-run", "--since-version", 1)
    assert (since.summary["versions"], since.summary["slates"]) == ([2, 3], 1000)
    until = refreshed(own, "--dry-run", "--since-version", 0, "--until-version", 1)
    assert (until.summary["versions"], until.summary["slates"]) == ([1, 1], 500)


def test_a_dry_run_changes_nothing(releases: Path, table: Path, tmp_path: Path) -> None:
    where = place(tmp_path, releases, table)
    before = tree(tmp_path), tree(table)
    dry = refreshed(where, "--dry-run")
    assert (dry.code, dry.summary["outcome"], dry.summary["release"]) == (0, "dry-run", None)
    assert dry.summary["gates"]
    assert dry.failed() == set()
    assert (tree(tmp_path), tree(table)) == before


# --- poison -----------------------------------------------------------------------------------


def _acts(slates: list[Slate], number: int) -> dict[str, np.ndarray]:
    acts = {kind: np.zeros((len(slates), number)) for kind in KINDS}
    for row, slate in enumerate(slates):
        for one in slate.feedback:
            acts[one.kind][row, one.position] = one.value
    return acts


def _among_lists(acts: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Feedback of other lists: rates and positions stay, what it says of the items is gone."""
    order = rng.permutation(len(acts["click"]))
    return {kind: values[order] for kind, values in acts.items()}


def _within_lists(acts: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        kind: np.take_along_axis(values, rng.random(values.shape).argsort(axis=1), axis=1)
        for kind, values in acts.items()
    }


def _all_click(acts: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A third of the lists are seen by bots that click on everything."""
    bots = rng.random(len(acts["click"])) < 1 / 3
    return {**acts, "click": np.where(bots[:, None], 1.0, acts["click"])}


def _inverted(acts: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {**acts, "click": 1.0 - acts["click"]}


@pytest.mark.parametrize(
    ("poison", "gate"),
    [
        (_among_lists, "train.alarms"),
        (_within_lists, "data.positions"),
        (_all_click, "data.saturated"),
        (_inverted, "data.positions"),
    ],
)
def test_poison_is_refused(  # type: ignore[no-untyped-def]
    poison, gate: str, releases: Path, slates: list[Slate], champion: Checkpoint, tmp_path: Path
) -> None:
    acts = poison(_acts(slates, 5), np.random.default_rng(3))
    bare = [msgspec.structs.replace(slate, feedback=()) for slate in slates]
    table = table_of(tmp_path / "table", with_feedback(bare, acts), champion)
    where = place(tmp_path / "home", releases, table)
    refused = refreshed(where)
    assert (refused.code, refused.summary["outcome"]) == (3, "refused"), refused.output
    assert gate in refused.failed()
    assert ReleaseStore(where.releases).names() == ("r0001",)
    assert not where.repository.exists()
    report = Path(refused.summary["report"])
    assert report.parent == where.releases / "refusals"
    assert f"`{gate}`" in (report / "report.md").read_text()
    before = tree(where.releases / "refusals")
    again = refreshed(where)
    assert (again.code, again.summary) == (3, refused.summary)
    assert tree(where.releases / "refusals") == before


def test_too_few_slates_are_refused(releases: Path, table: Path, tmp_path: Path) -> None:
    where = place(tmp_path, releases, table)
    told = tmp_path / "refresh.prom"
    refused = refreshed(
        where, "--until-version", 1, "--metrics-file", told, changes=["data.min_slates=501"]
    )
    assert (refused.code, refused.failed()) == (3, {"data.slates"})
    for line in ('outcome{outcome="refused"} 1.0', 'gate_passed{gate="data.slates"} 0.0'):
        assert f"\ngref_refresh_{line}\n" in told.read_text()
    assert json.loads((Path(refused.summary["report"]) / "summary.json").read_text()) == (
        refused.summary
    )


def test_one_user_may_not_speak_for_all(
    releases: Path, slates: list[Slate], champion: Checkpoint, tmp_path: Path
) -> None:
    loud = [
        msgspec.structs.replace(slate, user="u1") if number % 4 == 0 else slate
        for number, slate in enumerate(slates)
    ]
    table = table_of(tmp_path / "table", loud, champion)
    refused = refreshed(place(tmp_path / "home", releases, table))
    assert refused.code == 3
    assert refused.failed() == {"data.one_user"}


def test_a_candidate_that_is_no_better_is_refused(
    releases: Path, table: Path, tmp_path: Path
) -> None:
    where = place(tmp_path, releases, table)
    still = ["post_train.optim.learning_rate=1.0e-9"]
    refused = refreshed(where, changes=still)
    assert refused.code == 3
    assert refused.failed() <= {"train.better", "value"}
    assert refused.failed()


def test_drift_beyond_the_limit_is_refused(releases: Path, table: Path, tmp_path: Path) -> None:
    where = place(tmp_path, releases, table)
    refused = refreshed(where, changes=["gates.max_drift=1.0e-6"])
    assert refused.code == 3
    assert "drift.anchor" in refused.failed()
    assert "differences.png" in (Path(refused.summary["report"]) / "report.md").read_text()


def test_slates_of_a_greedy_log_say_that_off_policy_is_not_usable(
    releases: Path, world: World, champion: Checkpoint, tmp_path: Path
) -> None:
    greedy = traffic(world, champion, 1200, seed=2)
    table = table_of(tmp_path / "table", greedy, champion)
    done = refreshed(place(tmp_path / "home", releases, table))
    gates = [gate for gate in done.summary["gates"] if gate["name"].startswith("off_policy.")]
    assert gates, done.output
    assert all(gate["passed"] and "not usable" in gate["detail"] for gate in gates)
