"""Vectors of docs/features.md; ``python -m tests.contracts.feature_vectors`` prints the tables."""

from __future__ import annotations

import json

import numpy as np
import xxhash

from contracts.encoding import FeatureEncoder, standardise
from contracts.features import Categorical, Dense, FeatureGroup, FeatureSpec, FeedbackKind
from contracts.slates import Scalar

CATEGORIES: list[Scalar] = [
    None, "", "a", "42", 42, -7, 18446744073709551616, True, "true", False,
    "é", "e\u0301", "日本語", "user_0123456789_0123456789_0123456789",
]  # fmt: skip
BUCKETS = (1000, 100_000_000)
VOCABULARY = ("a", "42", "true", "")
DENSE: list[tuple[Dense, Scalar]] = [
    (Dense(name="x"), None),
    (Dense(name="x"), 0.5),
    (Dense(name="x", mean=20.0, std=8.0), 25),
    (Dense(name="x", mean=20.0, std=8.0), True),
    (Dense(name="x", transform="log1p"), 0),
    (Dense(name="x", transform="log1p"), 9.5),
    (Dense(name="x", transform="log1p", mean=3.2, std=1.1), 1234567),
    (Dense(name="x", std=0.01), 1e9),
    (Dense(name="x", std=0.01), -1e9),
]


def category_rows() -> list[str]:
    """Table rows: value, UTF-8 bytes, xxHash64, row for each of BUCKETS, row in VOCABULARY."""
    features = [Categorical(name=f"b{b}", width=1, buckets=b) for b in BUCKETS]
    features.append(Categorical(name="v", width=1, vocabulary=VOCABULARY))
    encoder = FeatureEncoder(
        FeatureSpec(
            user=FeatureGroup(categorical=tuple(features)),
            item=FeatureGroup(),
            list_size=1,
            feedback=(FeedbackKind(kind="click", type="binary"),),
            utility="click",
        )
    )
    lines = []
    for value in CATEGORIES:
        text = str(value).lower() if isinstance(value, bool) else str(value)
        utf8 = b"" if value is None else text.encode()
        digest = "" if value is None else xxhash.xxh64_hexdigest(utf8)
        rows = [int(encoder.categorical("user", feature, [value])[0]) for feature in features]
        cells = [json.dumps(value), utf8.hex(), digest, *map(str, rows)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def dense_rows() -> list[str]:
    """Table rows: transform, mean, std, value, and the pair in the shortest float32 form."""
    lines = []
    for feature, value in DENSE:
        missing = np.array([value is None])
        pair = standardise("user", feature, np.array([value], np.float64), missing)[0]
        cells = [feature.transform, feature.mean, feature.std, json.dumps(value), *map(str, pair)]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


if __name__ == "__main__":
    print("\n".join([*category_rows(), "", *dense_rows()]))
