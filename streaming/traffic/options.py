"""What the words of the command line mean."""

from __future__ import annotations

import re
from pathlib import Path

from contracts.champion import CHAMPION_FILE, ChampionFile
from contracts.reading import read_json
from streaming.traffic.session import Length

_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_NUMBER = r"(\d+(?:\.\d+)?)"
_SPAN = re.compile(rf"{_NUMBER}({'|'.join(_UNITS)})")
_DRIFT = re.compile(rf"{_NUMBER}\.\.{_NUMBER}")


def parse_span(text: str | None) -> int | None:
    """Milliseconds from "90s", "30m", "6h"; ValueError where it is none."""
    if text is None:
        return None
    match = _SPAN.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is no span of time; write it as 90s, 30m or 6h")
    return int(float(match[1]) * _UNITS[match[2]])


def parse_drift(text: str | None, length: Length) -> tuple[float, float] | None:
    """FROM..TO as two shares; ValueError where it is none, or there is no last request."""
    if text is None:
        return None
    match = _DRIFT.fullmatch(text)
    ends = (float(match[1]), float(match[2])) if match else None
    if ends is None or not (min(ends) >= 0 and max(ends) <= 1):
        raise ValueError(f"--drift {text}: write it as FROM..TO, both from 0 to 1, e.g. 0..1")
    if length.requests is None and ends[0] != ends[1]:
        raise ValueError("--drift needs --requests: without a last one there is no way to it")
    return ends


def champion_of(releases: Path) -> str:
    """The champion's name; ContractError where there is none."""
    return read_json(releases / CHAMPION_FILE, ChampionFile).release
