"""Plans, edits of manifests, and what is unloaded: properties, without a server."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.assignment import assign_many
from contracts.champion import ChampionChange, ChampionFile
from contracts.experiments import Arm, Experiment
from contracts.reading import ContractError
from contracts.routing import Routing
from deploy.rolling import plans
from deploy.rolling.changes import ChampionMove, ManifestEdit, running
from deploy.rolling.history import (
    add_stage,
    history_path,
    note_end,
    read_history,
    read_stages,
)
from deploy.rolling.loading import superfluous
from deploy.rolling.manifest_edit import edit
from deploy.rolling.replicas import resolve
from deploy.rolling.situation import Situation
from tests.rollout.manifests import experiment_of, manifest
from training.command import Refused

AT = datetime(2026, 3, 1, 9, tzinfo=timezone.utc)
NAMES = [f"r{number:04d}" for number in range(1, 7)]


def record(*releases: str) -> ChampionFile:
    return ChampionFile(changes=tuple(ChampionChange(release=r, time="") for r in releases))


def situation(*experiments: Experiment, champion: str = "r0001", **changes: object) -> Situation:
    """Clients read what the manifests say."""
    served = tuple(one for one in experiments if one.state == "running")
    fields: dict[str, object] = {
        "in_force": Routing(champion=champion, experiments=served),
        "record": record(champion),
        "experiments": {one.name: one for one in experiments},
    }
    return Situation(**{**fields, **changes})  # type: ignore[arg-type]


def trial(**changes: object) -> Experiment:
    return experiment_of(
        "trial", **{"state": "running", "tail": "started: '2026-03-01T09:00:00Z'\n", **changes}
    )


@settings(max_examples=30)
@given(before=st.integers(0, 8000), to=st.integers(0, 8000))
def test_a_ramp_moves_units_between_control_and_arm_alone(before: int, to: int) -> None:
    """Three arms; the third keeps its units, and the weights sum to 1 in grains."""
    arms = (
        Arm(name="control", release="champion", weight=(8000 - before) / 10_000),
        Arm(name="a", release="r0002", weight=before / 10_000, ceiling=0.8),
        Arm(name="b", release="r0003", weight=0.2, ceiling=0.2),
    )
    one = msgspec.structs.replace(trial(), arms=arms)
    weight = to / 10_000
    change = plans.plan_ramp(situation(one), "trial", "a", weight, AT)
    if weight == one.arms[1].weight:
        assert change.is_nothing
        return
    assert change.routing is not None
    after = change.routing.experiments[0]
    assert sum(arm.weight_grains for arm in after.arms) == 10_000
    units = [f"u{number}" for number in range(300)]
    old, new = assign_many(one, units), assign_many(after, units)
    assert ((old == 2) == (new == 2)).all()
    growing = weight > one.arms[1].weight
    moved = old != new
    assert ((old if growing else new)[moved] == 0).all()
    assert running(one, change.edits[0]) == after
    again = situation(after, in_force=change.routing)
    assert plans.plan_ramp(again, "trial", "a", weight, AT + timedelta(days=1)).is_nothing


def test_plans_touch_what_they_name() -> None:
    """Another manifest that was edited, or broken as a pair, is left for its own command."""
    other = experiment_of(
        "other", release="champion", surfaces="[search]", weight=0.1, tail="aa: true\n"
    )
    edited = msgspec.structs.replace(other, state="running", started="2026-03-01T09:00:00Z")
    now = situation(trial(), experiments={"trial": trial(), "other": edited})
    change = plans.plan_ramp(now, "trial", "treatment", 0.1, AT)
    assert change.routing is not None
    assert [one.name for one in change.routing.experiments] == ["trial"]
    change = plans.plan_promote(now, "trial", "treatment", "")
    assert change.champion == ChampionMove(
        to="r0002", before="r0001", reason="arm treatment of experiment trial"
    )
    reason = "promoted r0002: arm treatment of experiment trial"
    assert change.edits == (ManifestEdit(name="trial", state="stopped", reason=reason),)


def test_a_champion_that_would_be_compared_with_itself() -> None:
    with pytest.raises(Refused, match="experiment trial would both serve r0002"):
        plans.plan_champion(situation(trial()), "r0002", "")


def test_where_a_rollback_goes() -> None:
    def earlier(*releases: str, served: str | None = None) -> tuple[str, ...]:
        written = record(*releases)
        in_force = Routing(champion=served or releases[-1])
        return plans.earlier_champions(situation(record=written, in_force=in_force))

    assert earlier("r0001", "r0002", "r0003") == ("r0002", "r0001")
    assert earlier("r0001", "r0002", "r0001") == ("r0002",)
    back = ChampionFile(
        changes=(
            *record("r0001", "r0002").changes,
            ChampionChange(release="r0001", time="", rollback=True),
        )
    )
    follows = situation(record=back, in_force=Routing(champion="r0002"))
    assert plans.earlier_champions(follows) == ("r0001",), "it was rolled back by hand"
    with pytest.raises(ContractError, match="no champion to go back to"):
        earlier("r0001")
    with pytest.raises(ContractError, match=r"r0009 is no earlier champion; allowed: r0001"):
        plans.earlier_champions(
            situation(record=record("r0001", "r0002"), champion="r0002"), "r0009"
        )


states = st.sampled_from(["draft", "running", "stopped"])


@settings(max_examples=60)
@given(
    loaded=st.sets(st.sampled_from([*NAMES, "r0099"])),
    champions=st.lists(st.sampled_from(NAMES), min_size=1, max_size=5),
    arms=st.lists(st.tuples(st.sampled_from(NAMES), states), max_size=3),
    keep=st.integers(0, 3),
)
def test_nothing_that_is_needed_is_unloaded(
    loaded: set[str], champions: list[str], arms: list[tuple[str, str]], keep: int
) -> None:
    written = record(*champions)
    experiments = [
        experiment_of(
            f"e{n}",
            release=release,
            state=state,
            surfaces=f"[s{n}]",
            tail="started: '2026-03-01T09:00:00Z'\n",
        )
        for n, (release, state) in enumerate(arms)
    ]
    routing = Routing(
        champion=written.release,
        experiments=tuple(one for one in experiments if one.state == "running"),
    )
    gone = set(superfluous(sorted(loaded), routing, written, experiments, keep))
    assert not gone & set(routing.releases)
    assert gone <= loaded
    assert "r0099" not in gone, "nobody's: loaded by somebody else"
    assert not gone & {release for release, state in arms if state == "draft"}
    back = [name for name in dict.fromkeys(written.earlier) if name != written.release]
    assert not gone & set(back[:keep])
    ours = {*champions, *(release for release, state in arms if state == "stopped")}
    needed = {*routing.releases, *back[:keep], *(r for r, state in arms if state == "draft")}
    assert gone == (loaded & ours) - needed


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20)


@settings(max_examples=40)
@given(weight=st.integers(0, 10_000), comment=texts)
def test_edits_keep_all_else(weight: int, comment: str) -> None:
    tail = yaml.safe_dump({"description": comment}, allow_unicode=True)
    text = manifest("trial", tail=f"# {comment.strip()}\n{tail}")
    treated, control = weight / 10_000, 1 - weight / 10_000
    after = edit(
        text,
        {
            ("state",): "running",
            ("started",): "2026-03-01T09:00:00+00:00",
            ("arms", ("name", "treatment"), "weight"): treated,
            ("arms", ("name", "control"), "weight"): control,
        },
    )
    plain, old = yaml.safe_load(after), yaml.safe_load(text)
    assert [arm["weight"] for arm in plain["arms"]] == [control, treated]
    assert (plain["state"], plain["started"]) == ("running", "2026-03-01T09:00:00+00:00")
    for key in old.keys() - {"state", "arms"}:
        assert plain[key] == old[key]
    assert [line for line in after.splitlines() if line.startswith("#")] == [
        line for line in text.splitlines() if line.startswith("#")
    ]


@pytest.mark.parametrize(
    "text",
    [
        "{name: trial, state: draft, arms: [{name: control, weight: 1.0}]}",
        "name: trial\nstate: &s draft\nlayer: *s\narms:\n- {name: control, weight: 1}\n",
        "name: trial\nstate:\narms:\n- name: control\n  weight: 1.0",
        "---\nname: trial\nstate: draft\narms:\n- {name: control, weight: 1}\n...\n",
    ],
)
def test_edits_of_odd_manifests(text: str) -> None:
    after = yaml.safe_load(
        edit(
            text,
            {
                ("state",): "stopped",
                ("started",): "x",
                ("arms", ("name", "control"), "weight"): 0.5,
            },
        )
    )
    before = yaml.safe_load(text)
    assert after == {
        **before,
        "state": "stopped",
        "started": "x",
        "arms": [{"name": "control", "weight": 0.5}],
    }


def test_stages_never_fall(tmp_path: Path) -> None:
    """The wall clock is set back between two ramps."""
    for since, share in ((100, 0.1), (50, 0.2), (50, 0.2), (70, 0.1)):
        add_stage(tmp_path, "trial", since, {"control": 1 - share, "treatment": share})
    stages = read_stages(tmp_path, "trial")
    assert [stage.since for stage in stages] == [100, 100, 100]
    assert [stage.weights["treatment"] for stage in stages] == [0.1, 0.2, 0.1]
    note_end(tmp_path, "trial", "rolled back: hides")
    note_end(tmp_path, "trial", "the same again after a kill")
    ended = read_history(tmp_path, "trial").ended
    assert ended is not None
    assert ended.reason == "rolled back: hides"
    add_stage(tmp_path, "trial", 90, {"control": 0.9, "treatment": 0.1})  # it begins again
    assert read_history(tmp_path, "trial").ended is None
    assert len(read_stages(tmp_path, "trial")) == 4
    history_path(tmp_path, "trial").write_text("[")
    with pytest.raises(ContractError, match="not valid JSON"):
        read_stages(tmp_path, "trial")


def test_replicas_by_name() -> None:
    assert resolve(["127.0.0.1:8001", "localhost:8001", "dns:///localhost:8002"]) == (
        "127.0.0.1:8001",
        "127.0.0.1:8002",
    )
    assert resolve(["[::1]:8001"]) == ("[::1]:8001",)
    for name in ("triton", "triton:", "triton:0", "triton:99999", "http://a:1", "::1:8001"):
        with pytest.raises(ContractError, match="allowed: host:port"):
            resolve([name])
    with pytest.raises(ContractError, match="has no address"):
        resolve(["no-such-host.invalid:8001"])
