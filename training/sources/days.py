"""Days as people write them in settings, in ms since the epoch."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone


def day_ms(day: str, utc_offset_hours: float) -> int:
    """Midnight of ``YYYY-MM-DD`` in a fixed time zone.

    Raises:
        ValueError: not a date.
    """
    try:
        found = date.fromisoformat(day)
    except ValueError:
        raise ValueError(f"{day!r} is not a day; allowed: YYYY-MM-DD") from None
    zone = timezone(timedelta(hours=utc_offset_hours))
    midnight = datetime(found.year, found.month, found.day, tzinfo=zone)
    return int(midnight.timestamp() * 1000)
