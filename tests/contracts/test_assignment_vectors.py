"""docs/experiments.md says what the code does, and what an independent reading of it gives."""

from __future__ import annotations

import json
from pathlib import Path

from tests.contracts.assignment_vectors import (
    CEILINGS,
    SHARE,
    WEIGHTS,
    request_rows,
    unit_rows,
)
from tests.contracts.oracle import xxhash64

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "experiments.md").read_text("utf-8")


def table(head: str) -> list[str]:
    """Rows of the table whose head begins so."""
    _, _, rest = DOCUMENT.partition(f"\n| {head} |")
    lines = rest.splitlines()[2:]
    return lines[: next((i for i, line in enumerate(lines) if not line), len(lines))]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_tables_are_what_the_code_gives() -> None:
    """If this fails, the assignment changed: that deals the users of running experiments anew."""
    assert table("salt") == unit_rows()
    assert table("request_id") == request_rows()


def test_the_words_of_the_document_give_the_same_arms() -> None:
    """Written from the document: regions one after the other, the first of each is its arm's."""
    starts = [0, CEILINGS[0] * 100]
    for salt, unit, utf8, digest, bucket, arm in map(cells, table("salt")):
        hashed = bytes.fromhex(utf8)
        assert hashed == salt.encode() + b"/" + json.loads(unit).encode()
        assert xxhash64(hashed) == int(digest, 16)
        assert xxhash64(hashed) % 1_000_000 == int(bucket)
        expected = "c"
        for name, start, weight in zip(("t1", "t2"), starts, WEIGHTS):
            if start <= int(bucket) < start + weight * 100:
                expected = name
        assert arm == expected


def test_the_words_of_the_document_give_the_same_draws() -> None:
    for text, bucket, explored, seed in map(cells, table("request_id")):
        request = json.loads(text).encode()
        at = xxhash64(b":explore/" + request) % 1_000_000
        assert (str(at), explored) == (bucket, "yes" if at < SHARE * 1_000_000 else "no")
        assert xxhash64(b":seed/" + request) == int(seed) % 2**64
        assert -(2**63) <= int(seed) < 2**63


def test_the_table_shows_every_arm() -> None:
    assert {cells(row)[-1] for row in table("salt")} == {"c", "t1", "t2"}
    assert {cells(row)[2] for row in table("request_id")} == {"yes", "no"}
