"""Statuses as an analysis makes them, from a small simulated experiment."""

from __future__ import annotations

import math
import random

import msgspec

from deploy.analysis.status import (
    Ancestor,
    ArmMetric,
    ArmStatus,
    Cuped,
    Effect,
    ExperimentStatus,
    GuardrailStatus,
    LeftOut,
    Lift,
    Point,
    Segment,
    Srm,
    Stage,
)

HOUR = 3_600_000
START = 1_772_355_600_000  # 1 March 2026, 09:00 UTC


def sequence(lift: float, looks: int, step: int = 4 * HOUR, seed: int = 1) -> tuple[Point, ...]:
    """Estimates that settle on ``lift``, with a band of the mixture SPRT's shape."""
    drawn = random.Random(seed)
    points, total = [], 0.0
    for look in range(1, looks + 1):
        total += lift + drawn.gauss(0.0, 0.03)
        radius = 0.03 * math.sqrt(2 * (look + 8) / look**2 * math.log(20 * math.sqrt(look + 1)))
        points.append(
            Point(
                time=START + look * step,
                estimate=total / look,
                low=total / look - radius,
                high=total / look + radius,
            )
        )
    return tuple(points)


def effect(points: tuple[Point, ...]) -> Effect:
    last = points[-1]
    half = 0.6 * (last.high - last.estimate)
    return Effect(
        estimate=last.estimate,
        low=last.estimate - half,
        high=last.estimate + half,
        p=math.erfc(1.96 * abs(last.estimate) / half / math.sqrt(2)),
        always_low=last.low,
        always_high=last.high,
        sequence=points,
    )


def lift(metric: str, arm: str, points: tuple[Point, ...], better: str = "higher") -> Lift:
    relative = effect(points)
    good, bad = relative.always_low > 0, relative.always_high < 0
    if better == "lower":
        good, bad = bad, good
    return Lift(
        metric=metric,
        arm=arm,
        role="primary" if metric == "clicks" else "secondary",
        better=better,  # type: ignore[arg-type]
        absolute=None,
        relative=relative,
        improvement="better" if good else "worse" if bad else "undecided",
        cuped=Cuped(
            used=True,
            variance_reduction=0.31,
            units_with_history=17_204,
            unadjusted=None,
            why="17,204 of 24,110 units have a history of 14 days",
        ),
        why="",
    )


def arm(name: str, release: str, weight: float, units: int, clicks: float) -> ArmStatus:
    return ArmStatus(
        name=name,
        release=release,
        weight=weight,
        is_control=name == "control",
        units=units,
        lists=units * 9,
        fallback_share=0.0008,
        latency_p99_ms=11.4,
        metrics=(
            ArmMetric(metric="clicks", mean=clicks, low=clicks - 0.004, high=clicks + 0.004),
            ArmMetric(metric="hides", mean=0.0121, low=0.0112, high=0.0130),
            ArmMetric(metric="watch_s", mean=48.21, low=47.60, high=48.82),
        ),
    )


def winning() -> ExperimentStatus:
    """Ten days, ramped twice; the treatment wins."""
    looks = sequence(0.031, 60)
    return ExperimentStatus(
        name="fresh-feed",
        description="The refresh of 28 February against the champion, on the home feed.",
        state="running",
        unit="user",
        primary="clicks",
        alpha=0.05,
        started=START,
        now=looks[-1].time + HOUR // 4,
        first=START + HOUR // 3,
        last=looks[-1].time,
        table="s3://recommender/feedback",
        table_version=8214,
        stages=(
            Stage(since=START, weights={"control": 0.9, "refreshed": 0.1}),
            Stage(since=START + 52 * HOUR, weights={"control": 0.75, "refreshed": 0.25}),
            Stage(since=START + 124 * HOUR, weights={"control": 0.5, "refreshed": 0.5}),
        ),
        arms=(
            arm("control", "r0007", 0.5, 15_903, 0.4127),
            arm("refreshed", "r0008", 0.5, 8_207, 0.4252),
        ),
        lifts=(
            lift("clicks", "refreshed", looks),
            lift("hides", "refreshed", sequence(-0.004, 60, seed=3), "lower"),
            lift("watch_s", "refreshed", sequence(0.011, 60, seed=8)),
        ),
        srm=Srm(
            chi2=1.274,
            degrees=1,
            p=0.259,
            ok=True,
            observed={"control": 15_903, "refreshed": 8_207},
            expected={"control": 15_984.2, "refreshed": 8_125.8},
            why="",
        ),
        left_out=LeftOut(
            crossed_units=3, crossed_share=0.000124, crossed_lists=31, settling=412, future=2
        ),
        guardrails=(
            GuardrailStatus(
                metric="hides",
                arm="refreshed",
                value=-0.0041,
                bound=-0.031,
                limit=0.05,
                state="ok",
                why="not worse by more than 5 %, as far as can be told",
            ),
            GuardrailStatus(
                metric="fallback_share",
                arm="refreshed",
                value=0.0001,
                bound=-0.0004,
                limit=0.005,
                state="ok",
                why="0.08 % of lists fall back",
            ),
            GuardrailStatus(
                metric="latency_p99_ms",
                arm="refreshed",
                value=11.4,
                bound=11.1,
                limit=25.0,
                state="ok",
                why="p99 is 11.4 ms over the last hour",
            ),
        ),
        segments=tuple(
            Segment(
                segment=name,
                value=value,
                arm="refreshed",
                units=units,
                scale="relative",
                estimate=estimate,
                low=estimate - width,
                high=estimate + width,
                p=p,
            )
            for name, value, units, estimate, width, p in (
                ("surface", "home", 18_402, 0.035, 0.012, 0.0003),
                ("surface", "following", 5_708, 0.017, 0.023, 0.44),
                ("country", "de", 9_310, 0.028, 0.018, 0.02),
                ("country", "fr", 8_022, 0.041, 0.019, 0.004),
                ("country", "other", 6_778, -0.006, 0.026, 1.0),
            )
        ),
        verdict="ship",
        winner="refreshed",
        words=(
            "clicks of refreshed is better by 3.4 %, and the always-valid interval lies above 0.",
            "All guardrails hold, and the arms got their share of units.",
            "Promote it: python deploy/rollout.py promote fresh-feed --arm refreshed",
            "Segments agree but for country other, where nothing is shown yet.",
        ),
        lineage=(
            Ancestor(
                release="r0008",
                parent="r0007",
                created="2026-02-28T03:12:44Z",
                arms=("refreshed",),
                is_champion=False,
            ),
            Ancestor(
                release="r0007",
                parent="r0001",
                created="2026-02-21T03:10:09Z",
                arms=("control",),
                is_champion=True,
            ),
            Ancestor(
                release="r0001",
                parent=None,
                created="2026-01-09T15:40:51Z",
                arms=(),
                is_champion=False,
            ),
        ),
    )


def broken() -> ExperimentStatus:
    """Two treatments on the third day: one breaks a guardrail, one cannot be told yet."""
    base = winning()
    bad, new = sequence(-0.09, 18, seed=5), sequence(0.004, 18, seed=6)
    return msgspec.structs.replace(
        base,
        name="three-arms",
        description="",
        now=new[-1].time + HOUR // 4,
        last=new[-1].time,
        stages=(Stage(since=START, weights={"control": 0.8, "bold": 0.1, "careful": 0.1}),),
        arms=(
            arm("control", "r0007", 0.8, 4_010, 0.4127),
            arm("bold", "r0009", 0.1, 390, 0.3751),
            arm("careful", "r0010", 0.1, 604, 0.4139),
        ),
        lifts=(
            lift("clicks", "bold", bad),
            lift("clicks", "careful", new),
            lift("hides", "bold", sequence(0.21, 18, seed=3), "lower"),
            lift("hides", "careful", sequence(0.0, 18, seed=4), "lower"),
        ),
        srm=Srm(
            chi2=61.9,
            degrees=2,
            p=3.6e-14,
            ok=False,
            observed={"control": 4_010, "bold": 390, "careful": 604},
            expected={"control": 4_003.2, "bold": 500.4, "careful": 500.4},
            why="Look for a release that answers late or fails for some users.",
        ),
        guardrails=(
            GuardrailStatus(
                metric="hides",
                arm="bold",
                value=0.21,
                bound=0.17,
                limit=0.05,
                state="broken",
                why="worse by at least 17 %; 5 % is allowed",
            ),
            GuardrailStatus(
                metric="latency_p99_ms",
                arm="careful",
                value=None,
                bound=None,
                limit=25.0,
                state="unknown",
                why="no Prometheus was named (--prometheus URL)",
            ),
        ),
        verdict="roll back",
        winner=None,
        words=(
            "bold breaks the guardrail hides: worse by at least 17 %, 5 % is allowed.",
            "Roll back: python deploy/rollout.py rollback three-arms",
        ),
    )


def empty() -> ExperimentStatus:
    """Started a moment ago: no list has come."""
    base = winning()
    why = "no list of this arm has been seen"
    return msgspec.structs.replace(
        base,
        name="new",
        now=START + HOUR,
        first=None,
        last=None,
        stages=(),
        arms=tuple(
            msgspec.structs.replace(
                one,
                units=0,
                lists=0,
                fallback_share=None,
                latency_p99_ms=None,
                metrics=(ArmMetric(metric="clicks", mean=None, low=None, high=None),),
            )
            for one in base.arms
        ),
        lifts=tuple(
            msgspec.structs.replace(
                one,
                relative=None,
                improvement="undecided",
                why=why,
                cuped=Cuped(
                    used=False,
                    variance_reduction=None,
                    units_with_history=0,
                    unadjusted=None,
                    why="no history was read",
                ),
            )
            for one in base.lifts
        ),
        srm=Srm(
            chi2=None,
            degrees=1,
            p=None,
            ok=None,
            observed={"control": 0, "refreshed": 0},
            expected={"control": 0.0, "refreshed": 0.0},
            why="too few units to tell",
        ),
        left_out=LeftOut(),
        guardrails=(),
        segments=(),
        verdict="wait",
        winner=None,
        words=("No list has been seen yet.",),
        lineage=(),
    )
