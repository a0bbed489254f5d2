"""The status of an experiment, from real Delta tables with known content."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from contracts.assignment import assign_many
from contracts.experiment_metrics import Guardrail, Metric, StoppingRule
from contracts.experiments import Arm, Experiment
from contracts.reading import ContractError
from deploy.analysis.experiment_status import read_status
from deploy.analysis.status import ExperimentStatus, Stage
from tests.analysis.tables import (
    CLICKS,
    DAY,
    HIDES,
    HOUR,
    START,
    WATCH,
    experiment,
    traffic,
    write,
)

NOW = START + 3 * DAY


def labelled(one: Experiment, columns: dict[str, Any]) -> dict[str, Any]:
    """The columns with each list's arm, as the client labels it."""
    names = np.array([f"{one.name}/{arm.name}" for arm in one.arms])
    return {**columns, "arm": names[assign_many(one, columns["user"])]}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """Three days of an experiment without effect, and what was written."""
    columns = labelled(experiment(), traffic(1500, 12_000, seed=0))
    columns["segment"] = np.where(columns["number"] % 3 == 0, "a", "b")
    columns["fallback"] = np.where(np.arange(12_000) % 50 == 0, "deadline", "")
    half = {name: value[::2] for name, value in columns.items()}
    rest = {name: value[1::2] for name, value in columns.items()}
    folder = tmp_path_factory.mktemp("table") / "t"
    write(folder, rest)  # in two commits, and not in the order of time
    return write(folder, half), columns


def test_figures_are_those_of_the_lists(plain: tuple[str, dict[str, Any]]) -> None:
    table, columns = plain
    status = read_status(experiment(), table, now=NOW)
    click, watch = np.nan_to_num(columns["click"]), np.nan_to_num(columns["watch_time"])
    for arm in status.arms:
        mine = columns["arm"] == f"try/{arm.name}"
        assert arm.lists == mine.sum()
        assert arm.units == len(set(columns["user"][mine]))
        assert arm.fallback_share == pytest.approx((columns["fallback"][mine] != "").mean())
        by_name = {metric.metric: metric for metric in arm.metrics}
        assert by_name["clicks"].mean == pytest.approx(click[mine].sum() / mine.sum())
        assert by_name["watch"].mean == pytest.approx(watch[mine].mean())
        low, high = by_name["clicks"].low, by_name["clicks"].high
        assert low is not None
        assert high is not None
        assert low < by_name["clicks"].mean < high
    assert [arm.is_control for arm in status.arms] == [True, False]
    lift = status.lifts[0]
    control, new = (arm.metrics[0].mean for arm in status.arms)
    assert lift.relative is not None
    assert lift.relative.estimate == pytest.approx(new / control - 1)
    assert lift.relative.always_low < lift.relative.low < lift.relative.estimate
    assert lift.improvement == "undecided"
    assert not lift.cuped.used
    assert "0 of the units" in lift.cuped.why
    assert status.srm.ok
    assert sum(status.srm.observed.values()) == len(set(columns["user"]))
    assert (status.first, status.last) == (min(columns["time"]), max(columns["time"]))
    again = msgspec.json.decode(msgspec.json.encode(status), type=ExperimentStatus, strict=True)
    assert again == status
    json.loads(msgspec.json.encode(status), parse_constant=lambda name: pytest.fail(name))


def test_a_look_sees_what_it_would_have_seen_then(plain: tuple[str, dict[str, Any]]) -> None:
    table, _ = plain
    now = read_status(experiment(), table, now=NOW).lifts[0].relative
    assert now is not None
    times = [point.time for point in now.sequence]
    assert times == sorted(times)
    assert {later - earlier for earlier, later in pairwise(times)} == {HOUR}
    # At that time, with lists up to the minute that clocks may differ.
    point = now.sequence[30]
    then = read_status(experiment(), table, now=point.time - 60_000).lifts[0].relative
    assert then is not None
    for one, other in zip(then.sequence, now.sequence[:31], strict=True):
        assert msgspec.structs.astuple(one) == pytest.approx(msgspec.structs.astuple(other))
    assert then.estimate == pytest.approx(point.estimate)


def test_cuped_takes_out_the_past(plain: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    _, columns = plain
    past = traffic(1500, 12_000, seed=0)  # the same tastes, other chances
    chance = np.random.default_rng(9).random(past["click"].shape)
    rate = np.nan_to_num(columns["click"]).mean(axis=1)[:, None] * 0.5 + 0.1
    past["click"] = np.where(chance < rate, 1.0, np.nan)
    past["time"] = past["time"] - 5 * DAY
    write(tmp_path / "t", columns)
    table = write(tmp_path / "t", past)
    status = read_status(experiment(), table, now=NOW)
    lift = status.lifts[0]
    assert lift.cuped.used
    assert lift.absolute is not None
    assert lift.cuped.unadjusted is not None
    plain_lift = read_status(experiment(), table, now=NOW, history_days=0).lifts[0]
    assert plain_lift.absolute is not None
    assert not plain_lift.cuped.used
    unadjusted = lift.cuped.unadjusted
    assert unadjusted.estimate == plain_lift.absolute.estimate
    assert (unadjusted.low, unadjusted.p) == (plain_lift.absolute.low, plain_lift.absolute.p)
    widths = [one.high - one.low for one in (lift.absolute, plain_lift.absolute)]
    assert lift.cuped.variance_reduction is not None
    assert 0.1 < lift.cuped.variance_reduction < 0.95
    # 1 - rho^2 of the widths, but for a degree of freedom.
    ratio = (widths[0] / widths[1]) ** 2
    assert ratio == pytest.approx(1 - lift.cuped.variance_reduction, rel=1e-3)
    before = read_status(experiment(), table, now=NOW, history_days=1.5)
    assert not before.lifts[0].cuped.used  # the past ended two days before the start


def test_segments_surfaces_and_layers(tmp_path: Path) -> None:
    one = experiment(surfaces=("home", "search"))
    columns = labelled(one, traffic(1500, 12_000, seed=2))
    columns["segment"] = np.where(columns["number"] % 3 == 0, "a", "b")
    columns["arm"] = np.array([f"another/x,{arm},later/y" for arm in columns["arm"]])
    columns["surface"] = np.array(["home", "search", "mail"])[np.arange(12_000) % 3]
    table = write(tmp_path / "t", columns)
    status = read_status(one, table, now=NOW)
    assert sum(arm.lists for arm in status.arms) == 8000
    assert {segment.value for segment in status.segments} == {"home", "search"}
    by_user = read_status(one, table, now=NOW, segment="segment")
    assert {s.value: s.units for s in by_user.segments}.keys() == {"a", "b"}
    assert sum(s.units for s in by_user.segments) == sum(arm.units for arm in by_user.arms)
    for segment in (*status.segments, *by_user.segments):
        assert segment.low is not None
        assert segment.high is not None
        assert segment.low < 0 < segment.high or segment.p is not None
    assert read_status(one, table, now=NOW, segment=None).segments == ()
    with pytest.raises(ContractError, match="allowed: surface, segment"):
        read_status(one, table, now=NOW, segment="age")


def test_a_ramp(tmp_path: Path) -> None:
    columns = traffic(3000, 24_000, seed=3)
    arms = (
        Arm(name="control", release="champion", weight=0.9),
        Arm(name="new", release="r0002", weight=0.1, ceiling=0.5),
    )
    small = experiment(arms=arms)
    large = experiment(
        arms=(
            msgspec.structs.replace(arms[0], weight=0.5),
            msgspec.structs.replace(arms[1], weight=0.5),
        )
    )
    ramp = START + DAY + 1000
    early, late = labelled(small, columns)["arm"], labelled(large, columns)["arm"]
    columns["arm"] = np.where(columns["time"] < ramp, early, late)
    # Days differ: the second is twice as good, for all arms alike.
    better = columns["time"] < ramp
    columns["click"] = np.where(better[:, None], 1.0, columns["click"])
    table = write(tmp_path / "t", columns)
    stages = (
        Stage(since=START, weights={"control": 0.9, "new": 0.1}),
        Stage(since=ramp, weights={"control": 0.5, "new": 0.5}),
    )
    status = read_status(large, table, now=NOW, stages=stages)
    assert status.srm.ok
    assert status.left_out.crossed_units == 0
    settling = (columns["time"] >= ramp) & (columns["time"] < ramp + 60_000)
    assert status.left_out.settling == settling.sum()
    assert sum(arm.lists for arm in status.arms) == 24_000 - settling.sum()
    lift = status.lifts[0].relative
    assert lift is not None
    assert abs(lift.estimate) < 0.1  # the totals differ by half
    totals = [arm.metrics[0].mean for arm in status.arms]
    assert totals[1] / totals[0] < 0.85
    # Without the history: moved units seem to have crossed, and the ratio to be wrong.
    blind = read_status(large, table, now=NOW)
    assert blind.srm.ok is False
    assert blind.left_out.crossed_units > 100
    assert any("history of weights" in word for word in blind.words)


def test_an_arm_without_data(tmp_path: Path) -> None:
    columns = traffic(400, 3000, seed=4)
    columns["arm"] = "try/control"
    status = read_status(experiment(), write(tmp_path / "t", columns), now=NOW)
    assert status.verdict == "stop"  # half of the units are missing: the ratio says so
    new = status.arms[1]
    assert (new.units, new.lists, new.fallback_share) == (0, 0, None)
    assert all(m.mean is None and m.low is None for m in new.metrics)
    assert all(lift.absolute is None and lift.relative is None for lift in status.lifts)
    assert "the arm 0" in status.lifts[0].why
    assert status.guardrails[0].state == "unknown"


def test_no_data_at_all(tmp_path: Path) -> None:
    columns = traffic(50, 300, seed=5)
    table = write(tmp_path / "t", columns)
    status = read_status(experiment(), table, now=NOW)
    assert status.verdict == "wait"
    assert "No lists of control and new yet." in status.words
    assert status.srm.ok is None
    draft = read_status(experiment(state="draft", started=None), table, now=NOW)
    assert draft.verdict == "wait"
    assert "has not started" in draft.words[0]
    before = read_status(experiment(), table, now=START - HOUR)
    assert before.verdict == "wait"
    with pytest.raises(ContractError, match="no Delta table"):
        read_status(experiment(), str(tmp_path / "other"), now=NOW)
    stranger = Metric(name="buys", kind="purchase")
    with pytest.raises(ContractError, match=r"purchase.*click, watch_time, hide"):
        read_status(experiment(primary=stranger), table, now=NOW)


def test_one_unit_no_variance_and_a_control_at_zero(tmp_path: Path) -> None:
    users = np.array([f"u{n}" for n in range(600)])
    arm = np.where(np.arange(600) % 2 == 0, "try/control", "try/new")
    columns = {"user": users, "time": START + np.arange(600) * 1000, "arm": arm}
    one = {name: value[:2] for name, value in columns.items()}
    status = read_status(experiment(), write(tmp_path / "one", one), now=NOW)
    assert [a.units for a in status.arms] == [1, 1]
    assert status.lifts[0].absolute is None
    assert status.arms[0].metrics[0].mean == 0.0
    assert status.arms[0].metrics[0].low is None
    # Everybody does the same.
    same = {**columns, "click": np.ones((600, 4))}
    status = read_status(experiment(), write(tmp_path / "same", same), now=NOW)
    assert status.lifts[0].absolute is None
    assert "does not vary" in status.lifts[0].why
    assert status.arms[0].metrics[0].low == status.arms[0].metrics[0].high == 4.0
    # The control never clicks.
    rng = np.random.default_rng(6)
    click = np.where((arm == "try/new")[:, None] & (rng.random((600, 4)) < 0.4), 1.0, np.nan)
    zero = {**columns, "click": click}
    status = read_status(experiment(), write(tmp_path / "zero", zero), now=NOW)
    lift = status.lifts[0]
    assert lift.relative is None
    assert "not clearly above zero" in lift.why
    assert lift.absolute is not None
    assert lift.absolute.always_low > 0
    assert lift.improvement == "better"
    assert status.verdict == "ship"
    assert "absolute" in " ".join(status.words)


def test_bad_values_and_clocks_that_jump(tmp_path: Path) -> None:
    columns = labelled(experiment(), traffic(600, 4000, seed=7))
    time = columns["time"].copy()
    time[:30] = START + 40 * DAY  # a server in next month
    time[30:50] = START - 2 * DAY  # and one in last week
    columns["time"] = time
    click = columns["click"].copy()
    click[100, 0], click[101, 1], click[102, 2] = np.inf, -np.inf, 1e300
    columns["click"] = click
    arm = columns["arm"].copy()
    arm[200:207] = "try/third"
    arm[:5] = ""  # not of the experiment, so their clock is no matter here
    columns["arm"] = arm
    status = read_status(experiment(), write(tmp_path / "t", columns), now=NOW)
    left = status.left_out
    assert (left.future, left.before, left.unknown_arm, left.bad_values) == (25, 20, 7, 3)
    assert sum(one.lists for one in status.arms) == 4000 - 30 - 20 - 7
    assert status.last is not None
    assert status.last < NOW
    text = " ".join(status.words)
    for part in ("check the clocks", "arm that the manifest has not", "no finite numbers"):
        assert part in text


def test_units_in_two_arms_are_left_out(tmp_path: Path) -> None:
    columns = labelled(experiment(), traffic(600, 6000, seed=8))
    arm = columns["arm"].copy()
    moved = np.flatnonzero(columns["number"] < 60)
    arm[moved[::2]] = "try/new"
    columns["arm"] = arm
    status = read_status(experiment(), write(tmp_path / "t", columns), now=NOW)
    seen: dict[str, set[str]] = {}
    for user, label in zip(columns["user"], arm):
        seen.setdefault(user, set()).add(label)
    crossed = {user for user, labels in seen.items() if len(labels) > 1}
    assert 10 < status.left_out.crossed_units == len(crossed)
    assert status.left_out.crossed_lists == sum(user in crossed for user in columns["user"])
    assert sum(one.units for one in status.arms) == len(seen) - len(crossed)
    assert sum(one.lists for one in status.arms) == 6000 - status.left_out.crossed_lists
    assert sum(status.srm.observed.values()) == len(seen)


def test_requests_as_units(tmp_path: Path) -> None:
    one = experiment(unit="request")
    columns = traffic(300, 4000, seed=10)
    columns["request_id"] = np.array([f"q{n}" for n in range(4000)])
    names = np.array(["try/control", "try/new"])
    columns["arm"] = names[assign_many(one, columns["request_id"])]
    status = read_status(one, write(tmp_path / "t", columns), now=NOW)
    assert [arm.units for arm in status.arms] == [arm.lists for arm in status.arms]
    assert status.left_out.crossed_units == 0


def test_an_effect_ships_and_harm_rolls_back(tmp_path: Path) -> None:
    columns = labelled(experiment(), traffic(2000, 20_000, seed=11))
    rng = np.random.default_rng(12)
    treated = (columns["arm"] == "try/new")[:, None]
    more = {**columns, "click": np.where(treated & (rng.random((20_000, 4)) < 0.1), 1.0,
                                         columns["click"])}  # fmt: skip
    status = read_status(experiment(), write(tmp_path / "more", more), now=NOW)
    assert (status.verdict, status.winner) == ("ship", "new")
    assert "promote try" in " ".join(status.words)
    assert status.lifts[0].improvement == "better"
    latency = Guardrail(metric="latency_p99_ms", limit=20)
    guarded = experiment(guardrails=(latency,))
    status = read_status(guarded, str(tmp_path / "more"), now=NOW)
    assert status.verdict == "wait"
    assert "--prometheus" in " ".join(status.words)
    less = {**columns, "click": np.where(treated & (rng.random((20_000, 4)) < 0.5), np.nan,
                                         columns["click"])}  # fmt: skip
    status = read_status(experiment(), write(tmp_path / "less", less), now=NOW)
    assert (status.verdict, status.winner) == ("roll back", None)
    hides = {**more, "hide": np.where(treated & (rng.random((20_000, 4)) < 0.02), 1.0,
                                      columns["hide"])}  # fmt: skip
    status = read_status(experiment(), write(tmp_path / "hides", hides), now=NOW)
    assert status.verdict == "roll back"
    assert "Guardrail hides of new is broken" in status.words[0]
    rail = status.guardrails[0]
    assert rail.bound is not None
    assert rail.value is not None
    assert rail.value > rail.bound > rail.limit


def test_a_verdict_waits_for_its_rule(plain: tuple[str, dict[str, Any]]) -> None:
    table, _ = plain
    few = experiment(stopping=StoppingRule(min_units=1000, mde=0.05))
    status = read_status(few, table, now=NOW)
    assert status.verdict == "wait"
    assert "1000" in status.words[0]
    over = experiment(stopping=StoppingRule(min_units=100, mde=0.05, max_days=3))
    assert read_status(over, table, now=NOW).verdict == "stop"
    futile = experiment(stopping=StoppingRule(min_units=100, mde=0.5))
    status = read_status(futile, table, now=NOW)
    assert status.verdict == "stop"
    assert "smallest effect" in status.words[0]


def test_a_stopped_experiment_asks_for_nothing(plain: tuple[str, dict[str, Any]]) -> None:
    table, _ = plain
    status = read_status(experiment(state="stopped"), table, now=NOW)
    assert not any(word.startswith("Next:") for word in status.words)
    assert "try has stopped" in " ".join(status.words)


def test_an_aa_test_never_ships(plain: tuple[str, dict[str, Any]]) -> None:
    table, _ = plain
    arms = (
        Arm(name="control", release="champion", weight=0.5),
        Arm(name="new", release="champion", weight=0.5),
    )
    status = read_status(experiment(aa=True, arms=arms), table, now=NOW)
    assert status.verdict == "wait"
    assert "A/A" in status.words[0]


def test_three_arms_share_alpha(tmp_path: Path) -> None:
    arms = tuple(
        Arm(name=name, release=release, weight=weight)
        for name, release, weight in (
            ("control", "champion", 0.4),
            ("new", "r0002", 0.3),
            ("newer", "r0003", 0.3),
        )
    )
    one = experiment(arms=arms, primary=CLICKS, secondary=(WATCH,),
                     guardrails=(Guardrail(metric=HIDES, limit=0.1),
                                 Guardrail(metric="fallback_share", limit=0.01)))  # fmt: skip
    columns = labelled(one, traffic(1500, 12_000, seed=13))
    columns["fallback"] = np.where(
        (columns["arm"] == "try/newer") & (np.arange(12_000) % 10 == 0), "deadline", ""
    )
    table = write(tmp_path / "t", columns)
    status = read_status(one, table, now=NOW)
    assert [(lift.metric, lift.arm) for lift in status.lifts] == [
        ("clicks", "new"), ("clicks", "newer"), ("watch", "new"), ("watch", "newer")
    ]  # fmt: skip
    states = {(rail.arm, rail.metric): rail.state for rail in status.guardrails}
    assert states["newer", "fallback_share"] == "broken"
    assert states["new", "fallback_share"] == "ok"
    assert status.verdict == "roll back"
    pair = experiment(arms=(arms[0], msgspec.structs.replace(arms[1], weight=0.6)))
    alone = read_status(pair, table, now=NOW).lifts[0].relative
    shared = status.lifts[0].relative
    assert alone is not None
    assert shared is not None
    assert shared.estimate == alone.estimate
    assert shared.always_high > alone.always_high


def test_stages_that_do_not_fit_are_refused(plain: tuple[str, dict[str, Any]]) -> None:
    table, _ = plain
    half = {"control": 0.5, "new": 0.5}
    for stages, words in (
        ((Stage(since=START, weights={"control": 1.0}),), "has arms control"),
        ((Stage(since=START, weights={"control": 0.7, "new": 0.5}),), "sum to 1.2"),
        ((Stage(since=START, weights=half), Stage(since=START - 1, weights=half)), "earlier"),
    ):
        with pytest.raises(ContractError, match=words):
            read_status(experiment(), table, now=NOW, stages=stages)


def test_an_empty_table(tmp_path: Path) -> None:
    columns = {"user": [], "time": []}
    table = write(tmp_path / "t", {**columns, "click": np.empty((0, 4))})
    status = read_status(experiment(), table, now=NOW)
    assert (status.first, status.last, status.verdict) == (None, None, "wait")
    assert all(lift.absolute is None for lift in status.lifts)
