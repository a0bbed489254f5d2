"""Durations as people write them: 500ms, 30s, 10m, 2h, 1d."""

from __future__ import annotations

import re

from contracts.reading import ContractError

_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def duration_ms(text: str, option: str) -> int:
    """Whole milliseconds of a duration; raises ContractError that names the option."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text.strip())
    if match is None:
        raise ContractError(
            f"{option} {text!r}; allowed: a number and a unit (ms, s, m, h, d), as in 500ms or 10m"
        )
    return round(float(match.group(1)) * _UNITS_MS[match.group(2)])
