"""The files of Avito Context Ad Clicks (Kaggle, 2015): tab-separated, plain or .gz.

``trainSearchStream.tsv`` (SearchID, AdID, Position, ObjectType, HistCTR, IsClick) and
``SearchInfo.tsv`` are far larger than memory, so both are read once, side by side; both must
ascend by SearchID. The tables of ads and users are held as compact arrays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from training.sources.base import SourceError, Tally
from training.sources.tables import Columns, numbers, read_batches

CONTEXTUAL = 3  # the ObjectType whose clicks are known
UTC_OFFSET_HOURS = 3  # Moscow


@dataclass(frozen=True)
class ShownAd:
    """One row of SearchStream; hist_ctr and click are None for ads that are not contextual."""

    ad: int
    position: int
    object_type: int
    hist_ctr: float | None
    click: bool | None


@dataclass(frozen=True)
class Search:
    """One row of SearchInfo; time in ms."""

    time: int
    user: int
    logged_on: int | None
    location: int | None
    category: int | None
    has_query: bool


def read_searches(path: Path, tally: Tally) -> Iterator[tuple[int, list[ShownAd]]]:
    """Searches in ascending order of id, each with its usable ads in the order of the file.

    Raises:
        SourceError: the file does not ascend by SearchID.
    """
    columns = Columns(
        whole=("SearchID", "AdID", "Position", "ObjectType"), optional=("HistCTR", "IsClick")
    )
    current = last = -1
    ads: list[ShownAd] = []
    for table in read_batches(path, columns, tally, "\t", quoted=False):
        good = _usable(table, path, tally)
        values = [numbers(table, name) for name in columns.names]
        last = _check_order(values[0], last, path)
        rows = zip(*(column[good].tolist() for column in values))
        for search, ad, position, kind, rate, click in rows:
            if search != current:
                if ads:
                    yield current, ads
                current, ads = search, []
            contextual = kind == CONTEXTUAL
            ads.append(
                ShownAd(
                    ad=ad,
                    position=position,
                    object_type=kind,
                    hist_ctr=rate if contextual and rate == rate else None,
                    click=bool(click) if contextual else None,
                )
            )
    if ads:
        yield current, ads


def _usable(table: pa.Table, path: Path, tally: Tally) -> npt.NDArray[np.bool_]:
    position, kind = numbers(table, "Position"), numbers(table, "ObjectType")
    rate, click = numbers(table, "HistCTR"), numbers(table, "IsClick")
    contextual = kind == CONTEXTUAL
    good = np.ones(table.num_rows, bool)
    for reason, bad in (
        ("Position is below 1", position < 1),
        ("ObjectType is none of 1, 2, 3", ~np.isin(kind, (1, 2, 3))),
        ("HistCTR is not in 0 to 1", (rate < 0) | (rate > 1)),
        ("contextual ad with IsClick neither 0 nor 1", contextual & ~np.isin(click, (0, 1))),
    ):
        tally.drop(f"{path.name}: {reason}", int((good & bad).sum()))
        good &= ~bad
    return good


def _check_order(ids: npt.NDArray[np.int64], before: int, path: Path) -> int:
    """The last id of a batch; raises SourceError where ids do not ascend from ``before`` on."""
    steps = np.diff(ids, prepend=before)
    if (steps < 0).any():
        at = int(np.argmax(steps < 0))
        last = before if at == 0 else int(ids[at - 1])
        raise SourceError(
            f"{path}: SearchID {ids[at]} comes after {last}; the file must ascend by SearchID. "
            "Sort it, all lines but the first, numerically by its first column"
        )
    return int(ids[-1]) if len(ids) else before


class SearchLookup:
    """Reads SearchInfo alongside SearchStream: ids are asked for in ascending order."""

    def __init__(self, path: Path, tally: Tally) -> None:
        self._rows = self._read(path, tally)
        self._row: tuple[int, Search] | None = next(self._rows, None)

    def of(self, search: int) -> Search | None:
        """The search's row; None where the file has none."""
        while self._row is not None and self._row[0] < search:
            self._row = next(self._rows, None)
        return self._row[1] if self._row is not None and self._row[0] == search else None

    @staticmethod
    def _read(path: Path, tally: Tally) -> Iterator[tuple[int, Search]]:
        columns = Columns(
            whole=("SearchID", "UserID"),
            optional=("IsUserLoggedOn", "SearchLocationID", "SearchCategoryID"),
            text=("SearchDate", "SearchQuery"),
        )
        last = -1
        for table in read_batches(path, columns, tally, "\t", quoted=False):
            ids = numbers(table, "SearchID")
            last = _check_order(ids, last, path)
            times = _times(table["SearchDate"])
            tally.drop(f"{path.name}: SearchDate is not a time", times.null_count)
            rows = zip(
                ids.tolist(),
                times.to_pylist(),
                numbers(table, "UserID").tolist(),
                *(_wholes(table, name) for name in columns.optional),
                pc.is_valid(table["SearchQuery"]).to_pylist(),
            )
            for search, time, user, logged_on, location, category, has_query in rows:
                if time is not None:
                    yield (
                        search,
                        Search(
                            time=time,
                            user=user,
                            logged_on=logged_on,
                            location=location,
                            category=category,
                            has_query=has_query,
                        ),
                    )


def _times(dates: pa.ChunkedArray) -> pa.ChunkedArray:
    """``2015-05-07 22:22:00.0``, Moscow time, in ms since the epoch; null where it is not one."""
    seconds = pc.strptime(
        pc.utf8_slice_codeunits(dates, 0, 19),
        format="%Y-%m-%d %H:%M:%S",
        unit="s",
        error_is_null=True,
    )
    local = pc.multiply(pc.cast(seconds, pa.int64()), 1000)
    return pc.subtract(local, UTC_OFFSET_HOURS * 3_600_000)


def _wholes(table: pa.Table, name: str) -> list[int | None]:
    return [None if value != value else int(value) for value in numbers(table, name).tolist()]


@dataclass(frozen=True)
class Lookup:
    """Columns of a table by ascending id [K]; NaN is missing.

    float32 holds whole numbers below 2^24 exactly, which the classes in these columns are.
    """

    ids: npt.NDArray[np.int64]
    columns: dict[str, npt.NDArray[np.float32]]

    def of(self, one: int) -> dict[str, float | None]:
        """The columns of an id; all None where it is unknown."""
        at = int(np.searchsorted(self.ids, one))
        if at == len(self.ids) or self.ids[at] != one:
            return dict.fromkeys(self.columns)
        found = {name: float(values[at]) for name, values in self.columns.items()}
        return {name: None if value != value else value for name, value in found.items()}


def read_lookup(path: Path, key: str, names: tuple[str, ...], tally: Tally) -> Lookup:
    """A table by its key, as compact columns; of a repeated key the first row."""
    ids: list[npt.NDArray[np.int64]] = [np.zeros(0, np.int64)]
    parts: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in names}
    columns = Columns(whole=(key,), optional=names)
    for table in read_batches(path, columns, tally, "\t", quoted=False):
        ids.append(numbers(table, key))
        for name in names:
            parts[name].append(numbers(table, name).astype(np.float32))
    unique, first = np.unique(np.concatenate(ids), return_index=True)
    tally.drop(f"{path.name}: {key} repeated", sum(map(len, ids)) - len(unique))
    empty = np.zeros(0, np.float32)
    return Lookup(unique, {n: np.concatenate([empty, *parts[n]])[first] for n in names})
