"""Reads delimited files as typed columns, batch by batch; bad rows are dropped and counted.

Plain or .gz, as the extension says. A number is decimal digits with an optional sign and a
fraction; what else stands in a number's column makes the row malformed, save for the words that
mean "no value", which are null where the column allows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from training.sources.base import SourceError, Tally

#: How much of a file is held at once; no row may be longer.
BLOCK_BYTES = 1 << 22
NO_VALUE = ("", "NULL", "null", "nan", "NaN", "None", "\\N")
_NUMBER = r"^[+-]?[0-9]{1,15}(\.[0-9]*)?([eE][+-]?[0-9]{1,2})?$"
_WHOLE = r"^[+-]?[0-9]{1,18}(\.0*)?$"


@dataclass(frozen=True)
class Columns:
    """Which columns to read and how.

    Attributes:
        whole: whole numbers, required in every row. optional: numbers or null. text: text or null.
    """

    whole: Sequence[str] = ()
    optional: Sequence[str] = ()
    text: Sequence[str] = ()

    @property
    def names(self) -> list[str]:
        return [*self.whole, *self.optional, *self.text]


def find(folder: Path, stem: str, extension: str, required: bool = True) -> list[Path]:
    """Files ``<stem>*.<extension>``, plain or .gz, of a folder, sorted by name.

    Raises:
        SourceError: there is none, though one is needed, or one is there plain and packed.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder")
    ends = extension, f"{extension}.gz"
    paths = sorted(path for end in ends for path in folder.glob(f"{stem}*.{end}"))
    if required and not paths:
        raise SourceError(f"{folder}: no file {stem}*.{extension} or {stem}*.{extension}.gz")
    names = [path.name.removesuffix(".gz") for path in paths]
    for name in {name for name in names if names.count(name) > 1}:
        raise SourceError(f"{folder}: {name} is there plain and as .gz; remove one of them")
    return paths


def read_batches(
    path: Path, columns: Columns, tally: Tally, delimiter: str = ",", quoted: bool = True
) -> Iterator[pa.Table]:
    """Batches of a file: whole as int64, optional as double, text as string.

    Raises:
        SourceError: the file is missing, unreadable or cut short, or lacks a column.
    """
    bad = _BadRows(path, tally)
    try:
        with csv.open_csv(
            path,
            csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
            csv.ParseOptions(
                delimiter=delimiter,
                quote_char='"' if quoted else False,
                invalid_row_handler=bad,
            ),
            csv.ConvertOptions(
                column_types=dict.fromkeys(columns.names, pa.string()),
                include_columns=list(columns.names),
                strings_can_be_null=False,
            ),
        ) as reader:
            for batch in reader:
                yield _typed(pa.Table.from_batches([batch]), columns, path, tally)
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file") from None
    except KeyError as error:
        wanted = ", ".join(columns.names)
        raise SourceError(f"{path}: {error.args[0]}; the columns needed are {wanted}") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(f"{path}: cannot be read: {error}") from error


def read_table(
    path: Path, columns: Columns, tally: Tally, delimiter: str = ",", quoted: bool = True
) -> pa.Table:
    """All batches of a file as one table."""
    batches = list(read_batches(path, columns, tally, delimiter, quoted))
    if not batches:
        raise SourceError(f"{path}: holds no rows")
    return pa.concat_tables(batches)


def numbers(table: pa.Table, name: str) -> np.ndarray:
    """A column as a NumPy array; null in an optional column is NaN."""
    return np.asarray(table[name].to_numpy(zero_copy_only=False))


class _BadRows:
    """Skips and counts rows with too few or too many fields."""

    def __init__(self, path: Path, tally: Tally) -> None:
        self.path, self.tally = path, tally

    def __call__(self, _row: csv.InvalidRow) -> str:
        self.tally.drop(f"{self.path.name}: wrong number of fields")
        return "skip"


def _typed(table: pa.Table, columns: Columns, path: Path, tally: Tally) -> pa.Table:
    texts = {name: pc.utf8_trim_whitespace(table[name]) for name in columns.names}
    good = np.ones(table.num_rows, bool)
    for name in columns.whole:
        good &= _drop(pc.match_substring_regex(texts[name], _WHOLE), good, name, path, tally)
    for name in columns.optional:
        texts[name] = _nulled(texts[name])
        fine = pc.fill_null(pc.match_substring_regex(texts[name], _NUMBER), True)
        good &= _drop(fine, good, name, path, tally)
    for name in columns.text:
        texts[name] = _nulled(texts[name])
    mask = pa.array(good)
    out = {}
    for name, column in texts.items():
        kept = column.filter(mask)
        if name in columns.whole:
            kept = pc.cast(pc.replace_substring_regex(kept, r"^\+|\.0*$", ""), pa.int64())
        elif name in columns.optional:
            kept = pc.cast(pc.replace_substring_regex(kept, r"^\+", ""), pa.float64())
        out[name] = kept
    return pa.table(out)


def _drop(
    fine: pa.ChunkedArray, good: np.ndarray, name: str, path: Path, tally: Tally
) -> np.ndarray:
    flags = np.asarray(fine.to_numpy(zero_copy_only=False), bool)
    tally.drop(f"{path.name}: {name} is not a number", int((good & ~flags).sum()))
    return flags


def _nulled(column: pa.ChunkedArray) -> pa.ChunkedArray:
    empty = pc.is_in(column, pa.array(NO_VALUE))
    return pc.if_else(empty, pa.scalar(None, pa.string()), column)
