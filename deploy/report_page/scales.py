"""From values to places on a chart, and where the axes have their ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_MINUTE, _HOUR, _DAY = 60_000, 3_600_000, 86_400_000
#: Steps of a time axis, in ms.
_TIME_STEPS = (
    *(n * _MINUTE for n in (1, 5, 15, 30)),
    *(n * _HOUR for n in (1, 3, 6, 12)),
    *(n * _DAY for n in (1, 2, 4, 7, 14, 28, 91, 364)),
)


@dataclass(frozen=True)
class Linear:
    """Maps ``low..high`` onto ``start..end`` (in units of the chart)."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        part = (value - self.low) / (self.high - self.low)
        return self.start + part * (self.end - self.start)


def nice_ticks(low: float, high: float, about: int) -> list[float]:
    """Round values within ``low..high``, multiples of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / about
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def time_ticks(first: int, last: int, at_most: int) -> list[int]:
    """Whole minutes, hours or days (UTC) within ``first..last``, in ms."""
    steps = (s for s in _TIME_STEPS if (last - first) / s <= at_most)
    step = next(steps, (last - first) // at_most + 1)
    return list(range(-(-first // step) * step, last + 1, step))


def value_range(
    estimates: Sequence[float], lows: Sequence[float], highs: Sequence[float]
) -> tuple[float, float]:
    """What a chart of a confidence sequence shows: zero, every estimate of its later two thirds,
    and the bounds of that part; the first looks may be a hundred times as wide.
    """
    later = len(estimates) // 3
    values = [0.0, *estimates[later:], *lows[later:], *highs[later:]]
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite), max(finite)
    margin = 0.08 * (high - low) or 0.01
    return low - margin, high + margin
