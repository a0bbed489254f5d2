"""Slates summed by unit: the rows of which every mean and variance of an experiment is made.

Arms are dealt to units (users), so lists of one unit are not independent, and no variance may be
taken over lists. A row here is one unit in one stage and arm; its sums grow as lists arrive.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Hashes = npt.NDArray[np.uint64]


def hash_units(units: Iterable[str]) -> Hashes:
    """xxhash64 of each unit's name: 8 bytes a unit, however long the name.

    Two of ten million units share a hash in fewer than 3 runs of a million; they would count as
    one unit.
    """
    digest = xxhash.xxh64_intdigest
    hashes = (digest(unit.encode("utf-8", "surrogatepass")) for unit in units)
    return np.fromiter(hashes, np.uint64)


class UnitIndex:
    """Numbers units from 0 in the order in which they are first asked for."""

    def __init__(self) -> None:
        self._hashes: Hashes = np.empty(0, np.uint64)  # sorted
        self._numbers: Ints = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self._hashes)

    def numbers(self, hashes: Hashes) -> Ints:
        """The number of each unit, [any]; new ones get the next."""
        distinct, inverse = np.unique(hashes, return_inverse=True)
        at = np.searchsorted(self._hashes, distinct)
        inside = np.minimum(at, len(self._hashes) - 1)
        new = self._hashes[inside] != distinct if len(self._hashes) else np.ones(len(at), bool)
        if new.any():
            given = len(self) + np.arange(int(new.sum()))
            self._numbers = np.insert(self._numbers, at[new], given)
            self._hashes = np.insert(self._hashes, at[new], distinct[new])
            at = np.searchsorted(self._hashes, distinct)
        found: Ints = self._numbers[at][inverse.reshape(-1)]
        return found


@dataclass(frozen=True)
class Lists:
    """Shown lists, L of them, as columns.

    Attributes:
        unit: numbers of a UnitIndex [L]; time: ms [L]; stage, arm: indices [L].
        sums: what each list adds to the columns of a row [L, C].
    """

    unit: Ints
    time: Ints
    stage: Ints
    arm: Ints
    sums: Floats

    def __len__(self) -> int:
        return len(self.unit)

    def at(self, rows: Ints | Bools) -> Lists:
        """Some of the lists."""
        return Lists(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def join_lists(parts: list[Lists], columns: int) -> Lists:
    """All lists of some parts, in their order."""
    if not parts:
        none = np.empty(0, np.int64)
        return Lists(none, none, none, none, np.empty((0, columns)))
    names = Lists.__dataclass_fields__
    return Lists(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def sum_lists(lists: Lists, stages: int, arms: int, slot: Ints) -> tuple[Lists, Ints]:
    """One row for each unit, stage, arm and slot of time that occurs.

    Args:
        slot: of each list [L]; small whole numbers.

    Returns:
        The rows, each with the earliest time of its lists, sorted by slot; and their slots.
    """
    if not len(lists):
        return lists, slot
    width = int(slot.max()) + 1
    key = ((lists.unit * stages + lists.stage) * arms + lists.arm) * width + slot
    order = np.argsort(key, kind="stable")
    lists, slot, key = lists.at(order), slot[order], key[order]
    starts = np.flatnonzero(np.r_[True, key[1:] != key[:-1]])
    rows = Lists(
        lists.unit[starts],
        np.minimum.reduceat(lists.time, starts),
        lists.stage[starts],
        lists.arm[starts],
        np.add.reduceat(lists.sums, starts, axis=0),
    )
    by_slot = np.argsort(slot[starts], kind="stable")
    return rows.at(by_slot), slot[starts][by_slot]


class UnitTotals:
    """The totals of every unit so far, by stage and arm.

    Attributes:
        rows: sorted by unit, stage and arm.
        first_arm, first_stage, first_time: of each unit by its number, when it was first seen;
            -1 for a unit that was not. crossed: seen in two arms of one stage.
    """

    def __init__(self, stages: int, arms: int, columns: int) -> None:
        self.stages, self.arms = stages, arms
        self.rows = join_lists([], columns)
        self.first_arm: Ints = np.empty(0, np.int64)
        self.first_stage: Ints = np.empty(0, np.int64)
        self.first_time: Ints = np.empty(0, np.int64)
        self.crossed: Bools = np.empty(0, bool)

    def add(self, rows: Lists) -> None:
        """Add rows of ``sum_lists``, of lists that are later than all before (but for one slot)."""
        if not len(rows):
            return
        self._see(rows)
        rows = sum_lists(rows, self.stages, self.arms, np.zeros(len(rows), np.int64))[0]
        key, old = self._key(rows), self._key(self.rows)
        at = np.searchsorted(old, key)
        known = np.zeros(len(key), bool)
        known[at < len(old)] = old[at[at < len(old)]] == key[at < len(old)]
        self.rows.sums[at[known]] += rows.sums[known]
        new = rows.at(~known)
        names = ("unit", "time", "stage", "arm", "sums")
        self.rows = Lists(
            *(
                np.insert(getattr(self.rows, name), at[~known], getattr(new, name), axis=0)
                for name in names
            )
        )
        self._mark_crossed(np.unique(rows.unit))

    def counted(self) -> Lists:
        """The rows of units that kept to one arm in each stage."""
        return self.rows if not self.crossed.any() else self.rows.at(~self.crossed[self.rows.unit])

    def _key(self, rows: Lists) -> Ints:
        return (rows.unit * self.stages + rows.stage) * self.arms + rows.arm

    def _see(self, rows: Lists) -> None:
        missing = int(rows.unit.max()) + 1 - len(self.first_arm)
        if missing > 0:
            unseen = np.full(missing, -1, np.int64)
            self.first_arm = np.r_[self.first_arm, unseen]
            self.first_stage = np.r_[self.first_stage, unseen]
            self.first_time = np.r_[self.first_time, unseen]
            self.crossed = np.r_[self.crossed, np.zeros(missing, bool)]
        order = np.lexsort((rows.arm, rows.time, rows.unit))
        unit = rows.unit[order]
        earliest = order[np.r_[True, unit[1:] != unit[:-1]]]
        new = earliest[self.first_arm[rows.unit[earliest]] < 0]
        self.first_arm[rows.unit[new]] = rows.arm[new]
        self.first_stage[rows.unit[new]] = rows.stage[new]
        self.first_time[rows.unit[new]] = rows.time[new]

    def _mark_crossed(self, units: Ints) -> None:
        rows = self.rows
        # Rows are sorted, so two arms of one unit and stage are neighbours.
        twice = (rows.unit[1:] == rows.unit[:-1]) & (rows.stage[1:] == rows.stage[:-1])
        self.crossed[rows.unit[1:][twice]] = True
