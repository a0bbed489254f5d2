"""Each treatment against the control: charts of the primary metric, and a table of all metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deploy.analysis.shown import shown_effect
from deploy.analysis.status import Effect, ExperimentStatus, Lift, Scale
from deploy.report_page.interval_bar import common_reach, interval_bar
from deploy.report_page.lift_chart import lift_chart
from deploy.report_page.markup import Child, Html, joined, tag
from deploy.report_page.numbers import UNKNOWN, interval, lift, p_value, share, when
from deploy.report_page.tables import READINGS, chip, note, section, table

#: Sizes for a desk, a tablet and a phone; the style shows one of them, so that letters keep theirs.
_SIZES = (("wide", 880, 300), ("middle", 528, 270), ("narrow", 262, 220))
#: Rows of the table beneath a chart.
_ROWS = 30


def charts(status: ExperimentStatus, truth: Mapping[str, float]) -> Html:
    """Lift of the primary metric over time, a chart for each treatment."""
    primary = [one for one in status.lifts if one.role == "primary"]
    return section(
        "Lift over time",
        "lift-over-time",
        note(
            f"{status.primary}, against the control. The band is the always-valid "
            f"{share(1 - status.alpha)} interval: it may be looked at as often as one likes. "
            "Dashed lines mark where weights changed."
        ),
        *(
            _figure(status, one, f"chart-{index}", truth.get(one.arm))
            for index, one in enumerate(primary)
        ),
        None if primary else note("No treatment to compare yet."),
    )


def _figure(status: ExperimentStatus, one: Lift, key: str, truth: float | None) -> Html:
    effect, scale = shown_effect(one)
    truth = truth if scale == "relative" else None
    if effect is None or not effect.sequence:
        return tag("figure", tag("h3", one.arm), note(one.why or "No look so far."))
    looks = effect.sequence
    told = (
        f"{one.arm}, {scale} lift of {one.metric} after {len(looks)} looks: "
        f"{lift(effect.estimate, scale)}, "
        f"always valid {interval(effect.always_low, effect.always_high, scale)}"
    )
    if truth is not None:
        told += f"; the truth of the simulated world is {lift(truth, scale)} (dotted)"
    drawn = (
        tag(
            "div",
            lift_chart(
                looks,
                status.stages,
                one.arm,
                scale,
                title=told,
                key=f"{key}-{name}",
                width=width,
                height=height,
                truth=truth,
            ),
            class_=name,
        )
        for name, width, height in _SIZES
    )
    return tag(
        "figure",
        tag("h3", one.arm, " ", chip(*READINGS[one.improvement])),
        *drawn,
        tag("figcaption", told, "."),
        _looks_table(effect, scale),
    )


def _looks_table(effect: Effect, scale: Scale) -> Html:
    looks = effect.sequence
    step = -(-len(looks) // _ROWS)
    rows = [
        (when(look.time), lift(look.estimate, scale), interval(look.low, look.high, scale))
        for look in looks[::-1][::step]
    ]
    every = "every look" if step == 1 else f"one look in {step}"
    return tag(
        "details",
        tag("summary", "The same as a table"),
        table(f"The newest first, {every}", ("Look", ">Lift", ">Always valid"), rows),
    )


def metrics(status: ExperimentStatus) -> Html:
    """All metrics of all treatments, with both kinds of interval."""
    known = [effect for effect, _ in map(shown_effect, status.lifts) if effect is not None]
    reach = {
        scale: common_reach(
            bound
            for one in status.lifts
            for effect, own in (shown_effect(one),)
            if effect is not None and own == scale
            for bound in (effect.low, effect.high, effect.estimate)
        )
        for scale in ("relative", "absolute")
    }
    several = len({one.arm for one in status.lifts}) > 1
    return section(
        "Metrics",
        "metrics",
        note(
            "Decide by the always-valid interval. The fixed-horizon interval and p are right for "
            "one look at a time chosen beforehand; the bar shows that interval."
        ),
        table(
            "Lift against the control",
            ("Metric", *(["Arm"] if several else []), ">Lift", ">Always valid", "Fixed horizon")
            + (">p", "Reading"),
            (_row(one, reach, several) for one in status.lifts),
        )
        if status.lifts
        else note("No treatment to compare yet."),
        _cuped(status.lifts) if known else None,
    )


def _row(one: Lift, reach: dict[str, float], several: bool) -> Sequence[Child]:
    effect, scale = shown_effect(one)
    name = joined(
        one.metric,
        joined(" ", chip("primary")) if one.role == "primary" else None,
        tag("span", "lower is better", class_="small light") if one.better == "lower" else None,
    )
    arm: list[Child] = [one.arm] if several else []
    if effect is None:
        return [name, *arm, UNKNOWN, UNKNOWN, one.why, UNKNOWN, chip("undecided")]
    label, tone = READINGS[one.improvement]
    fixed = interval(effect.low, effect.high, scale)
    bar = interval_bar(effect.low, effect.estimate, effect.high, reach[scale], fixed, tone=tone)
    return [
        name,
        *arm,
        lift(effect.estimate, scale),
        interval(effect.always_low, effect.always_high, scale),
        joined(bar, tag("span", fixed, class_="small")),
        p_value(effect.p),
        chip(label, tone),
    ]


def _cuped(lifts: Sequence[Lift]) -> Html:
    """One sentence for each different one, for metrics often share it."""
    told: dict[str, list[str]] = {}
    for one in lifts:
        cut = one.cuped.variance_reduction
        less = f" (variance less by {share(cut)})" if one.cuped.used and cut is not None else ""
        told.setdefault(f"{one.cuped.why}{less}", []).append(f"{one.metric} of {one.arm}")
    return joined(
        *(
            note(tag("b", f"CUPED{', ' + ', '.join(which) if len(told) > 1 else ''}: "), why)
            for why, which in told.items()
            if why
        )
    )
