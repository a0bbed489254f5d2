"""Label rates by day and by position, added up batch by batch."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from contracts.features import MAX_LIST, FeatureSpec
from contracts.feedback_table import DAY
from contracts.reading import Strict
from streaming.feedback_table.rules import Lists

#: Two-sided 95 % of the normal distribution.
_Z = 1.959963984540054


class Rate(Strict, kw_only=True, frozen=True):
    """Feedback of one kind on a group of shown items.

    Attributes:
        of: the day (YYYY-MM-DD), or the position from 1.
        shown: items that were shown.
        given: those with a value above 0.
        rate, low, high: given / shown with its 95 % Wilson interval.
        mean: mean value of all that was shown, 0 where the user did nothing.
    """

    kind: str
    of: str
    shown: int
    given: int
    rate: float
    low: float
    high: float
    mean: float


class RateCounter:
    """Counts of shown items and of feedback; its memory grows with days, not with rows."""

    def __init__(self, spec: FeatureSpec) -> None:
        self._kinds = [one.kind for one in spec.feedback]
        # By kind, and day or position: shown, given, sum of values.
        self._days: dict[tuple[str, str], npt.NDArray[np.float64]] = defaultdict(
            lambda: np.zeros(3)
        )
        self._places = {kind: np.zeros((MAX_LIST, 3)) for kind in self._kinds}

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in rows; feedback that is not aligned with what was shown is left out."""
        exposed = Lists.of(batch, "exposed")
        days = batch.column(DAY).dictionary_encode()
        names, day_of_row = days.dictionary.to_pylist(), days.indices.to_numpy()
        for kind in self._kinds:
            lists = Lists.of(batch, f"feedback__{kind}")
            is_null = batch.column(f"feedback__{kind}").is_null().to_numpy(zero_copy_only=False)
            fits = (lists.lengths == exposed.lengths) | is_null
            shown = fits[exposed.rows] & (exposed.places < MAX_LIST)
            value = np.nan_to_num(lists.numbers(), posinf=0.0, neginf=0.0)
            used = fits[lists.rows] & (lists.places < MAX_LIST)
            value, rows, places = value[used], lists.rows[used], lists.places[used]
            given = (value > 0).astype(float)
            for column, (at_place, at_row, weight) in enumerate(
                (
                    (exposed.places[shown], exposed.rows[shown], None),
                    (places, rows, given),
                    (places, rows, value),
                )
            ):
                self._places[kind][:, column] += np.bincount(at_place, weight, MAX_LIST)
                by_day = np.bincount(day_of_row[at_row], weight, len(names))
                for name, count in zip(names, by_day):
                    self._days[kind, name][column] += count

    def by_day(self) -> tuple[Rate, ...]:
        """A rate for each kind and day."""
        kinds = {kind: at for at, kind in enumerate(self._kinds)}
        ordered = sorted(self._days, key=lambda key: (kinds[key[0]], key[1]))
        return tuple(_rate(kind, day, self._days[kind, day]) for kind, day in ordered)

    def by_position(self) -> tuple[Rate, ...]:
        """A rate for each kind and position that something was shown at."""
        return tuple(
            _rate(kind, str(place + 1), counts)
            for kind in self._kinds
            for place, counts in enumerate(self._places[kind])
            if counts[0]
        )


def wilson(given: int, shown: int) -> tuple[float, float]:
    """95 % score interval of a rate (Wilson 1927); unlike the normal one sound for rare labels."""
    if shown == 0:
        return 0.0, 1.0
    rate, z2 = given / shown, _Z * _Z
    middle = rate + z2 / (2 * shown)
    half = _Z * math.sqrt(rate * (1 - rate) / shown + z2 / (4 * shown * shown))
    low, high = (middle - half) / (1 + z2 / shown), (middle + half) / (1 + z2 / shown)
    return max(low, 0.0), min(high, 1.0)


def _rate(kind: str, of: str, counts: npt.NDArray[np.float64]) -> Rate:
    shown, given = int(counts[0]), int(counts[1])
    low, high = wilson(given, shown)
    return Rate(
        kind=kind,
        of=of,
        shown=shown,
        given=given,
        rate=given / shown if shown else 0.0,
        low=low,
        high=high,
        mean=float(counts[2]) / shown if shown else 0.0,
    )
