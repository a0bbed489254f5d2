"""An interval as a small SVG for the cell of a table: where zero is, the bounds, the estimate."""

from __future__ import annotations

from collections.abc import Iterable

from deploy.report_page.markup import Html, tag
from deploy.report_page.scales import Linear

_WIDTH, _HEIGHT, _MARGIN = 168, 22, 6


def common_reach(values: Iterable[float | None]) -> float:
    """The largest distance from zero: one scale for all bars of a table, zero in the middle."""
    return max((abs(value) for value in values if value is not None), default=0.0) or 1.0


def interval_bar(
    low: float | None,
    value: float | None,
    high: float | None,
    reach: float,
    label: str,
    *,
    limit: float | None = None,
    tone: str = "",
) -> Html | None:
    """The bar; None where nothing is known.

    Args:
        reach: the bar shows ``-reach`` to ``reach``; what is beyond is cut off.
        label: what a screen reader says.
        limit: marked by a line of its own.
        tone: a class that colours it: good, bad, or nothing.
    """
    if value is None or low is None or high is None:
        return None
    scale = Linear(-reach, reach, _MARGIN, _WIDTH - _MARGIN)
    middle = _HEIGHT / 2
    left, right = (scale(min(max(bound, -reach), reach)) for bound in (low, high))
    at, zero = scale(min(max(value, -reach), reach)), scale(0.0)
    return tag(
        "svg",
        tag("title", label),
        tag("line", x1=zero, x2=zero, y1=1, y2=_HEIGHT - 1, class_="zero"),
        None
        if limit is None or limit > reach
        else tag("line", x1=scale(limit), x2=scale(limit), y1=1, y2=_HEIGHT - 1, class_="limit"),
        tag("line", x1=left, x2=right, y1=middle, y2=middle, class_="whisker"),
        tag("circle", cx=at, cy=middle, r=4, class_="dot"),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        width=_WIDTH,
        height=_HEIGHT,
        role="img",
        aria_label=label,
        class_=f"bar {tone}".strip(),
    )
