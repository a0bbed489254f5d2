"""From the table to totals by unit, with a look at every step of time on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from contracts.feedback_table import day_of
from deploy.analysis.reading import OUTSIDE, UNKNOWN, Columns, ExperimentTable
from deploy.analysis.stages import stage_at
from deploy.analysis.status import Stage
from deploy.analysis.units import Floats, Ints, Lists, UnitIndex, UnitTotals, join_lists, sum_lists

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
#: Steps of time between looks: they divide a day, or are whole days.
STEPS_H = (1, 2, 3, 4, 6, 8, 12, 24, 48, 96, 168)
#: While an experiment is young: so many looks at most with each of the shorter steps.
STEPS_S, YOUNG_LOOKS = (10, 60, 600), 60
#: Looks of a sequence at most; and the rows that all its looks together may go over.
MAX_LOOKS = 340
MAX_LOOK_ROWS = 1_200_000_000


@dataclass
class Collected:
    """What was read.

    Attributes:
        totals: of every unit. parts: the same by segment, units numbered as in ``totals``.
        history: sums of each unit before the experiment [units, C]; 0 where there is none.
        has_history: [units].
        first, last: times of the first and the last list that counts, in ms.
        before, settling, unknown, bad_values: see ``LeftOut``.
    """

    totals: UnitTotals
    history: Floats
    has_history: np.ndarray[tuple[int], np.dtype[np.bool_]]
    parts: dict[str, UnitTotals] = field(default_factory=dict)
    first: int | None = None
    last: int | None = None
    before: int = 0
    settling: int = 0
    unknown: int = 0
    bad_values: int = 0

    def history_of(self, units: Ints) -> Floats:
        """Sums before the experiment of units by number [any, C]; 0 for one that had none."""
        return self.history[units]


def look_step(start: int, end: int, rows: int) -> int:
    """Milliseconds between looks: an hour, or what keeps their number and work in bounds.

    A young experiment is looked at more often, so that there is something to see on its first day.
    """
    for seconds in STEPS_S:
        if end - start <= YOUNG_LOOKS * seconds * 1000:
            return seconds * 1000
    looks = max(24, min(MAX_LOOKS, MAX_LOOK_ROWS // max(1, rows)))
    for hours in STEPS_H:
        if (end - start) / (hours * HOUR_MS) <= looks:
            return hours * HOUR_MS
    return STEPS_H[-1] * HOUR_MS


def collect(
    table: ExperimentTable,
    stages: Sequence[Stage],
    arms: int,
    *,
    end: int,
    history_ms: int,
    step: int,
    segmented: bool,
    settle_ms: int,
    look: Callable[[int, Collected], None],
) -> Collected:
    """Read the experiment's lists in the order of time, up to ``end`` (ms, exclusive).

    Args:
        history_ms: how long before the start the units' past is read.
        settle_ms: lists of so long after a change of weights are counted, and left out.
        look: is called with each full step's end and the totals as of then, and with ``end``.
    """
    columns = 3 + len(table.kinds)
    index, start = UnitIndex(), stages[0].since
    found = Collected(
        UnitTotals(len(stages), arms, columns), np.zeros((0, columns)), np.zeros(0, bool)
    )
    _read_history(table, index, found, start, history_ms)
    next_look: int | None = None
    for day in table.days:
        if not day_of(start) <= day <= day_of(end - 1):
            continue
        by_slot = _day(
            table, day, stages, arms, (start, end), index, found, step, segmented, settle_ms
        )
        _grow_history(found, len(index))
        for slot in sorted(by_slot):
            if next_look is not None and next_look <= slot * step:
                look(next_look, found)
            found.totals.add(join_lists(by_slot.pop(slot), columns))
            next_look = (slot + 1) * step
    if next_look is not None:
        look(min(next_look, end), found)
    return found


def _day(
    table: ExperimentTable,
    day: str,
    stages: Sequence[Stage],
    arms: int,
    span: tuple[int, int],
    index: UnitIndex,
    found: Collected,
    step: int,
    segmented: bool,
    settle_ms: int,
) -> dict[int, list[Lists]]:
    """The rows of a day by slot of time (numbered from the epoch), one for each unit and batch."""
    by_slot: dict[int, list[Lists]] = {}
    for batch in table.batches(day, *span):
        lists, wanted = _lists(batch, stages, index, found, settle_ms)
        if not len(lists):
            continue
        found.bad_values += batch.bad_values
        first, last = int(lists.time.min()), int(lists.time.max())
        found.first = first if found.first is None else min(found.first, first)
        found.last = last if found.last is None else max(found.last, last)
        slot = lists.time // step
        base = int(slot.min())
        rows, row_slots = sum_lists(lists, len(stages), arms, slot - base)
        for one in np.unique(row_slots).tolist():
            by_slot.setdefault(base + one, []).append(rows.at(row_slots == one))
        if segmented:
            _add_segments(lists, batch.segment[wanted], batch.segments, found, len(stages), arms)
    return by_slot


def _lists(
    batch: Columns, stages: Sequence[Stage], index: UnitIndex, found: Collected, settle_ms: int
) -> tuple[Lists, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    stage, settling = stage_at(stages, batch.time, settle_ms)
    found.unknown += int((batch.arm == UNKNOWN).sum())
    found.settling += int((settling & (batch.arm >= 0)).sum())
    wanted = (batch.arm >= 0) & ~settling & (stage >= 0)
    unit = index.numbers(batch.unit[wanted])
    return (
        Lists(unit, batch.time[wanted], stage[wanted], batch.arm[wanted], batch.sums[wanted]),
        wanted,
    )


def _add_segments(
    lists: Lists,
    segment: Ints,
    names: Sequence[str],
    found: Collected,
    stages: int,
    arms: int,
) -> None:
    for code in np.unique(segment).tolist():
        name = names[code] or "(none)"
        if name not in found.parts:
            found.parts[name] = UnitTotals(stages, arms, lists.sums.shape[1])
        rows = lists.at(segment == code)
        found.parts[name].add(sum_lists(rows, stages, arms, np.zeros(len(rows), np.int64))[0])


def _read_history(
    table: ExperimentTable, index: UnitIndex, found: Collected, start: int, history_ms: int
) -> None:
    """Sums of every unit's lists before the start; lists labelled with the experiment are none."""
    begin = max(0, start - history_ms)
    for day in table.days:
        if not day_of(begin) <= day <= day_of(max(0, start - 1)) or begin >= start:
            continue
        for batch in table.batches(day, begin, start):
            outside = batch.arm == OUTSIDE
            found.before += int((~outside).sum())
            unit = index.numbers(batch.unit[outside])
            _grow_history(found, len(index))
            np.add.at(found.history, unit, batch.sums[outside])
            found.has_history[unit] = True


def _grow_history(found: Collected, units: int) -> None:
    missing = units - len(found.history)
    if missing > 0:
        found.history = np.concatenate([found.history, np.zeros((missing, found.history.shape[1]))])
        found.has_history = np.concatenate([found.has_history, np.zeros(missing, bool)])
