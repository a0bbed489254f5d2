"""docs/features.md says what the code does, and what an independent reading of it gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from contracts.features import Categorical, Dense, FeatureSpec
from contracts.reading import convert
from tests.contracts import oracle
from tests.contracts.feature_vectors import BUCKETS, VOCABULARY, category_rows, dense_rows

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "features.md").read_text("utf-8")


def table(head: str) -> list[str]:
    """Rows of the table whose head begins so."""
    _, _, rest = DOCUMENT.partition(f"\n| {head} |")
    lines = rest.splitlines()[2:]
    return lines[: next((i for i, line in enumerate(lines) if not line), len(lines))]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_tables_are_what_the_code_gives() -> None:
    """If this fails, the encoding changed: that breaks every release and every foreign client."""
    assert table("value") == category_rows()
    assert table("transform") == dense_rows()


def test_the_oracle_gives_the_same_rows() -> None:
    features = [Categorical(name="b", width=1, buckets=buckets) for buckets in BUCKETS]
    features.append(Categorical(name="v", width=1, vocabulary=VOCABULARY))
    for value, utf8, digest, *rows in map(cells, table("value")):
        raw = json.loads(value)
        assert [oracle.row(feature, raw) for feature in features] == [int(row) for row in rows]
        if raw is not None:
            assert oracle.xxhash64(bytes.fromhex(utf8)) == int(digest, 16)


def test_the_oracle_gives_the_same_pairs() -> None:
    for transform, mean, std, value, *pair in map(cells, table("transform")):
        raw = {"name": "x", "transform": transform, "mean": float(mean), "std": float(std)}
        found = oracle.pair(convert(raw, Dense, "table"), json.loads(value))
        assert found == pytest.approx([float(column) for column in pair], rel=1e-6)


def test_the_example_is_a_spec() -> None:
    example = DOCUMENT.split("```yaml\n")[1].split("```")[0]
    convert(yaml.safe_load(example), FeatureSpec, "docs/features.md")
