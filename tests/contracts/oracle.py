"""An encoder written from docs/features.md alone: slow, obvious, and sharing no code with ours.

It has its own xxHash64 too, after the algorithm's specification, so that a mistake in how the
library is called (seed, byte order, signedness) would show.
"""

from __future__ import annotations

import math

from contracts.features import Categorical, Dense, FeatureGroup, FeatureSpec
from contracts.slates import RerankRequest, Scalar

Rows = list[list[float]]

P1, P2, P3, P4, P5 = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)
WORD = 2**64


def xxhash64(data: bytes) -> int:
    """xxHash64 with seed 0."""

    def rotate(x: int, r: int) -> int:
        return ((x << r) | (x >> (64 - r))) % WORD

    def mix(lane: int, word: int) -> int:
        return rotate((lane + word * P2) % WORD, 31) * P1 % WORD

    def word(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], "little")

    at = 0
    if len(data) >= 32:
        lanes = [(P1 + P2) % WORD, P2, 0, -P1 % WORD]
        while at + 32 <= len(data):
            lanes = [mix(lane, word(at + 8 * i, 8)) for i, lane in enumerate(lanes)]
            at += 32
        total = sum(rotate(lane, r) for lane, r in zip(lanes, (1, 7, 12, 18))) % WORD
        for lane in lanes:
            total = ((total ^ mix(0, lane)) * P1 + P4) % WORD
    else:
        total = P5
    total = (total + len(data)) % WORD
    while at + 8 <= len(data):
        total = (rotate(total ^ mix(0, word(at, 8)), 27) * P1 + P4) % WORD
        at += 8
    if at + 4 <= len(data):
        total = (rotate(total ^ (word(at, 4) * P1 % WORD), 23) * P2 + P3) % WORD
        at += 4
    while at < len(data):
        total = rotate(total ^ (data[at] * P5 % WORD), 11) * P1 % WORD
        at += 1
    total = (total ^ (total >> 33)) * P2 % WORD
    total = (total ^ (total >> 29)) * P3 % WORD
    return total ^ (total >> 32)


def row(feature: Categorical, value: Scalar) -> int:
    if value is None:
        return 0
    text = value if isinstance(value, str) else format(value, "d")
    if value is True:
        text = "true"
    elif value is False:
        text = "false"
    if feature.vocabulary is None:
        assert feature.buckets is not None
        return 2 + xxhash64(text.encode("utf-8")) % feature.buckets
    for index, known in enumerate(feature.vocabulary):
        if known == text:
            return 2 + index
    return 1


def pair(feature: Dense, value: Scalar) -> list[float]:
    if value is None:
        return [0.0, 1.0]
    x = float(value)
    if feature.transform == "log1p":
        x = math.log1p(x)
    return [max(-10.0, min(10.0, (x - feature.mean) / feature.std)), 0.0]


def encode(spec: FeatureSpec, requests: list[RerankRequest], width: int) -> dict[str, list]:
    """The five arrays of a batch as nested lists, by the names of ``EncodedBatch``."""

    def group(side: FeatureGroup, known: dict[str, Scalar]) -> tuple[list[int], list[float]]:
        rows = [row(feature, known.get(feature.name)) for feature in side.categorical]
        pairs = [x for feature in side.dense for x in pair(feature, known.get(feature.name))]
        return rows or [0], pairs or [0.0, 0.0]

    out: dict[str, list] = {
        name: [] for name in ("item_cat", "item_dense", "user_cat", "user_dense", "count")
    }
    for request in requests:
        rows, pairs = group(spec.user, {**request.user_features, "user": request.user})
        out["user_cat"].append(rows)
        out["user_dense"].append(pairs)
        items = [
            group(spec.item, {**one.features, "item": one.item, "score": one.score})
            for one in request.candidates
        ]
        empty_rows, empty_pairs = [0] * len(items[0][0]), [0.0] * len(items[0][1])
        padding = width - len(items)
        out["item_cat"].append([rows for rows, _ in items] + [empty_rows] * padding)
        out["item_dense"].append([pairs for _, pairs in items] + [empty_pairs] * padding)
        out["count"].append(len(items))
    return out
