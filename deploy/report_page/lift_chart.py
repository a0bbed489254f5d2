"""Lift over time as SVG: the estimate, its always-valid band, the zero line, and the ramps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from deploy.analysis.status import Point, Scale, Stage
from deploy.report_page.markup import Html, joined, tag
from deploy.report_page.numbers import lift, share, tick, when
from deploy.report_page.scales import Linear, nice_ticks, time_ticks, value_range

_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 26, 30
#: Labels of ramps nearer to one another than this are left out, all but the first.
_LABEL_GAP = 46


@dataclass(frozen=True)
class Frame:
    """Where the data lies on a chart of a given size."""

    width: int
    height: int
    x: Linear
    y: Linear

    @property
    def right(self) -> float:
        return self.width - _RIGHT

    @property
    def bottom(self) -> float:
        return self.height - _BOTTOM


def lift_chart(
    points: Sequence[Point],
    stages: Sequence[Stage],
    arm: str,
    scale: Scale,
    *,
    title: str,
    key: str,
    width: int,
    height: int,
    truth: float | None = None,
) -> Html:
    """A chart of one arm.

    Args:
        points: at least one look.
        stages: whose beginnings are marked, with the weight of ``arm``.
        title: what a screen reader says of it.
        key: makes the ids of this chart its own.
        truth: drawn as a line, where it is known.
        width, height: in CSS pixels; the chart is drawn for this size, so that its letters keep it.
    """
    first = min([points[0].time, *(stage.since for stage in stages)])
    last = max(points[-1].time, first + 60_000)
    low, high = value_range(*zip(*((p.estimate, p.low, p.high) for p in points)))
    if truth is not None:
        low, high = min(low, truth), max(high, truth)
    frame = Frame(
        width,
        height,
        Linear(first, last, _LEFT, width - _RIGHT),
        Linear(low, high, height - _BOTTOM, _TOP),
    )
    final = points[-1]
    return tag(
        "svg",
        tag("title", title, id=f"{key}-title"),
        tag("defs", tag("clipPath", _area(frame), id=f"{key}-clip")),
        _grid(frame, first, last, scale),
        tag("g", _band(frame, points), _line(frame, points), clip_path=f"url(#{key}-clip)"),
        _truth(frame, truth),
        _ramps(frame, stages, arm),
        tag("circle", cx=frame.x(final.time), cy=frame.y(final.estimate), r=4.5, class_="dot"),
        _looks(frame, points, scale),
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="img",
        aria_labelledby=f"{key}-title",
        class_="chart",
    )


def _area(frame: Frame) -> Html:
    return tag("rect", x=_LEFT, y=_TOP, width=frame.right - _LEFT, height=frame.bottom - _TOP)


def _grid(frame: Frame, first: int, last: int, scale: Scale) -> Html:
    parts = []
    values = nice_ticks(frame.y.low, frame.y.high, 6)
    step = values[1] - values[0] if len(values) > 1 else abs(frame.y.high - frame.y.low)
    for value in values:
        y, zero = frame.y(value), abs(value) < 1e-12
        parts.append(
            tag("line", x1=_LEFT, x2=frame.right, y1=y, y2=y, class_="zero" if zero else "grid")
        )
        text = tick(0.0 if zero else value, step, scale)
        parts.append(tag("text", text, x=_LEFT - 8, y=y + 4, text_anchor="end", class_="tick"))
    ticks = time_ticks(first, last, max(3, (frame.width - _LEFT) // 82))
    for at in ticks:
        x = frame.x(at)
        parts.append(tag("line", x1=x, x2=x, y1=frame.bottom, y2=frame.bottom + 5, class_="axis"))
        anchor = "end" if x > frame.right - 24 else "middle"
        label = _time_label(at)
        parts.append(
            tag("text", label, x=x, y=frame.bottom + 20, text_anchor=anchor, class_="tick")
        )
    return joined(*parts)


def _time_label(ms: int) -> str:
    """The day at its beginning, else the time of day."""
    at = datetime.fromtimestamp(ms / 1000, timezone.utc)
    return f"{at:%H:%M}" if ms % 86_400_000 else f"{at.day} {at:%b}"


def _band(frame: Frame, points: Sequence[Point]) -> Html:
    upper = [(frame.x(p.time), frame.y(_bounded(frame, p.high))) for p in points]
    lower = [(frame.x(p.time), frame.y(_bounded(frame, p.low))) for p in points]
    if len(points) == 1:
        (x, top), (_, bottom) = upper[0], lower[0]
        return tag("line", x1=x, x2=x, y1=top, y2=bottom, class_="bound single")
    return joined(
        tag("path", d=f"{_path(upper + lower[::-1])}Z", class_="band"),
        tag("path", d=_path(upper), class_="bound"),
        tag("path", d=_path(lower), class_="bound"),
    )


def _bounded(frame: Frame, value: float) -> float:
    """Within a chart's height of the chart: what is far outside is cut off by the clip anyway."""
    reach = frame.y.high - frame.y.low
    if math.isnan(value):
        return 0.0
    return min(max(value, frame.y.low - reach), frame.y.high + reach)


def _line(frame: Frame, points: Sequence[Point]) -> Html:
    places = [(frame.x(p.time), frame.y(_bounded(frame, p.estimate))) for p in points]
    return tag("path", d=_path(places), class_="estimate")


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)


def _truth(frame: Frame, truth: float | None) -> Html:
    if truth is None:
        return Html("")
    y = frame.y(truth)
    return tag("line", x1=_LEFT, x2=frame.right, y1=y, y2=y, class_="truth")


def _ramps(frame: Frame, stages: Sequence[Stage], arm: str) -> Html:
    """A dashed line where the weights changed, with the arm's weight from there on."""
    parts, free = [], -math.inf
    for stage in stages:
        x, text = frame.x(stage.since), share(stage.weights.get(arm, 0.0))
        title = tag("title", f"{when(stage.since)}: {arm} gets {text}")
        parts.append(tag("line", title, x1=x, x2=x, y1=_TOP - 6, y2=frame.bottom, class_="ramp"))
        if x >= free and x < frame.right - 20:
            parts.append(tag("text", text, x=x + 5, y=_TOP - 8, class_="ramp-label"))
            free = x + _LABEL_GAP
    return joined(*parts)


def _looks(frame: Frame, points: Sequence[Point], scale: Scale) -> Html:
    """Invisible strips that say on hover what stood at each look."""
    step = max(1, len(points) // 120)
    shown = points[::step]
    parts = []
    for index, point in enumerate(shown):
        left = frame.x(point.time)
        right = frame.x(shown[index + 1].time) if index + 1 < len(shown) else frame.right
        told = (
            f"{when(point.time)}: {lift(point.estimate, scale)}, "
            f"{lift(point.low, scale)} to {lift(point.high, scale)}"
        )
        parts.append(
            tag(
                "rect",
                tag("title", told),
                x=left,
                y=_TOP,
                width=max(1.0, right - left),
                height=frame.bottom - _TOP,
                class_="look",
            )
        )
    return joined(*parts)
