"""Delimited files: types, and what becomes of rows and files that are broken."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from training.sources.base import SourceError, Tally
from training.sources.tables import Columns, find, numbers, read_table

COLUMNS = Columns(whole=("id",), optional=("x",), text=("t",))


def write(path: Path, text: str) -> Path:
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_types_and_missing_values(tmp_path: Path, name: str) -> None:
    path = write(
        tmp_path / name, 'id,other,x,t\n1,z,2.5,"a,b"\n-2.0,z,,\n+3,z,NULL,nan\n4,z,1e-2,ü\n'
    )
    tally = Tally()
    table = read_table(path, COLUMNS, tally)
    assert table["id"].to_pylist() == [1, -2, 3, 4]
    assert table["x"].to_pylist() == [2.5, None, None, 0.01]
    assert np.isnan(numbers(table, "x")[1])
    assert table["t"].to_pylist() == ["a,b", None, None, "ü"]
    assert not tally.dropped


def test_malformed_rows_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = ["1,1,a", "x,1,a", "2,,b", "3,inf,c", ",1,a", "4,1", "5,1,a,b", "6,1,d", "7.5,1,a"]
    path = write(tmp_path / "a.csv", "id,x,t\n" + "\n".join(rows) + "\n")
    tally = Tally()
    assert read_table(path, COLUMNS, tally)["id"].to_pylist() == [1, 2, 6]
    assert tally.dropped == {
        "a.csv: wrong number of fields": 2,
        "a.csv: id is not a number": 3,
        "a.csv: x is not a number": 1,
    }


def test_large_numbers_stay_exact(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "id,x,t\n1650882384975123,0,\n")
    assert read_table(path, COLUMNS, Tally())["id"].to_pylist() == [1650882384975123]


def test_missing_file_column_or_rows(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        read_table(tmp_path / "none.csv", COLUMNS, Tally())
    with pytest.raises(SourceError, match=r"'t'.*the columns needed are id, x, t"):
        read_table(write(tmp_path / "a.csv", "id,x\n1,2\n"), COLUMNS, Tally())
    with pytest.raises(SourceError, match=r"cannot be read|no rows"):
        read_table(write(tmp_path / "b.csv", ""), COLUMNS, Tally())


def test_packed_file_that_is_cut_short(tmp_path: Path) -> None:
    whole = gzip.compress(b"id,x,t\n" + b"1,2,some text to pack\n" * 5000)
    path = tmp_path / "a.csv.gz"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match="cannot be read"):
        read_table(path, COLUMNS, Tally())


def test_not_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,x,t\n1,2,\xff\xfe\n")
    with pytest.raises(SourceError, match="cannot be read"):
        read_table(path, COLUMNS, Tally())


def test_quotes_are_text_where_the_format_has_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", 'id\tx\tt\n1\t2\t32" screen\n2\t3\t"\n')
    table = read_table(path, COLUMNS, Tally(), "\t", quoted=False)
    assert table["t"].to_pylist() == ['32" screen', '"']


def test_find(tmp_path: Path) -> None:
    write(tmp_path / "log_b.csv.gz", "")
    write(tmp_path / "log_a.csv", "")
    write(tmp_path / "log_a.txt", "")
    assert [path.name for path in find(tmp_path, "log_", "csv")] == ["log_a.csv", "log_b.csv.gz"]
    assert find(tmp_path, "other", "csv", required=False) == []
    with pytest.raises(SourceError, match=r"no file other\*\.csv"):
        find(tmp_path, "other", "csv")
    write(tmp_path / "log_b.csv", "")
    with pytest.raises(SourceError, match="plain and as"):
        find(tmp_path, "log_", "csv")
    with pytest.raises(SourceError, match="no such folder"):
        find(tmp_path / "none", "log_", "csv")
