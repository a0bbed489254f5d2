"""The primary metric in parts of the units."""

from __future__ import annotations

from collections.abc import Sequence

from deploy.analysis.status import ExperimentStatus, Segment
from deploy.report_page.interval_bar import common_reach, interval_bar
from deploy.report_page.markup import Child, Html, joined, tag
from deploy.report_page.numbers import count, interval, lift, p_value
from deploy.report_page.tables import note, section, table


def segments(status: ExperimentStatus) -> Html | None:
    """A row for each part; None where nothing was parted."""
    if not status.segments:
        return None
    reach = {
        scale: common_reach(
            bound
            for one in status.segments
            if one.scale == scale
            for bound in (one.low, one.high, one.estimate)
        )
        for scale in ("relative", "absolute")
    }
    return section(
        "Segments",
        "segments",
        note(
            f"{status.primary} in parts of the units: where to look, not what to decide by. "
            "p is corrected for the number of parts."
        ),
        table(
            "Lift by segment, fixed horizon",
            ("Segment", "Arm", ">Units", ">Lift", "Interval", ">p, corrected"),
            (_row(one, reach[one.scale]) for one in status.segments),
        ),
    )


def _row(one: Segment, reach: float) -> Sequence[Child]:
    bounds = interval(one.low, one.high, one.scale)
    bar = interval_bar(one.low, one.estimate, one.high, reach, bounds)
    return (
        f"{one.segment}: {one.value}",
        one.arm,
        count(one.units),
        lift(one.estimate, one.scale),
        joined(bar, tag("span", bounds, class_="small")),
        p_value(one.p),
    )
