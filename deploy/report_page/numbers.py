"""Numbers and times as people read them. What is not known is a dash."""

from __future__ import annotations

import math
from datetime import datetime, timezone

from deploy.analysis.status import Scale

UNKNOWN = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"
_NARROW = "\N{NARROW NO-BREAK SPACE}"


def count(value: float) -> str:
    """1234567 -> 1,234,567"""
    return f"{value:,.0f}"


def number(value: float | None, digits: int = 4) -> str:
    """Four significant digits."""
    if value is None:
        return UNKNOWN
    text = f"{value:,.{digits}g}" if abs(value) < 10**digits else count(value)
    return text.replace("-", _MINUS) if "e" not in text else text


def share(value: float | None) -> str:
    """0.1234 -> 12.3 %"""
    if value is None:
        return UNKNOWN
    percent = 100 * value
    digits = 0 if percent == round(percent) or abs(percent) >= 100 else 1 if percent >= 1 else 2
    return f"{percent:.{digits}f}{_NARROW}%"


def lift(value: float | None, scale: Scale) -> str:
    """Signed: +2.13 % on the relative scale, +0.0123 on the absolute one."""
    if value is None:
        return UNKNOWN
    sign = "+" if value > 0 else _MINUS if value < 0 else ""
    size = abs(value)
    if scale == "absolute":
        return f"{sign}{size:.3g}"
    return f"{sign}{100 * size:.{0 if size >= 1 else 1 if size >= 0.1 else 2}f}{_NARROW}%"


def tick(value: float, step: float, scale: Scale) -> str:
    """A value on an axis whose ticks are ``step`` apart, with the digits that this needs."""
    factor = 100 if scale == "relative" else 1
    digits = max(0, -math.floor(math.log10(step * factor) + 1e-9))
    sign = "+" if value > 0 else _MINUS if value < 0 else ""
    unit = f"{_NARROW}%" if scale == "relative" else ""
    return f"{sign}{abs(value) * factor:.{digits}f}{unit}"


def points(value: float | None) -> str:
    """A difference of shares, in percentage points: +0.12 points."""
    return UNKNOWN if value is None else f"{lift(100 * value, 'absolute')} points"


def interval(low: float | None, high: float | None, scale: Scale) -> str:
    """+0.4 % to +3.8 %"""
    if low is None or high is None:
        return UNKNOWN
    return f"{lift(low, scale)} to {lift(high, scale)}"


def p_value(value: float | None) -> str:
    """0.0312; < 0.0001"""
    if value is None:
        return UNKNOWN
    return "< 0.0001" if value < 0.0001 else f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def when(ms: int | None) -> str:
    """22 Nov 2026, 09:10 UTC"""
    if ms is None:
        return UNKNOWN
    at = datetime.fromtimestamp(ms / 1000, timezone.utc)
    return f"{at.day} {at:%b %Y, %H:%M} UTC"


def span(ms: int) -> str:
    """How long, in the unit that fits: 3.5 days, 7 hours, 12 minutes."""
    for unit, size in (("day", 86_400_000), ("hour", 3_600_000)):
        if ms >= size:
            value = f"{ms / size:.1f}".removesuffix(".0")
            return f"{value} {unit}{'' if value == '1' else 's'}"
    minutes = round(ms / 60_000)
    return f"{minutes} minute{'' if minutes == 1 else 's'}"
