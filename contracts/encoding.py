"""The one feature encoder: raw values to arrays, for training and for the client alike.

Rules (docs/features.md repeats them for other languages):

* A category is a string, a whole number (its decimal form) or a boolean ("true", "false").
  Row = 2 + xxhash64(UTF-8 value, seed 0) mod buckets, or 2 + its index in the vocabulary;
  row 0 is a missing value, row 1 a value that the vocabulary does not hold.
* A dense value x becomes the pair (clip((transform(x) - mean) / std, -10, 10), 0); a missing one
  the pair (0, 1). NaN and infinities are errors: they are a fault upstream, not a missing value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter, itemgetter

import numpy as np
import numpy.typing as npt
import xxhash

from contracts.features import (
    FIRST_VALUE,
    MISSING,
    OUT_OF_VOCABULARY,
    Categorical,
    Dense,
    FeatureGroup,
    FeatureSpec,
)
from contracts.slates import Candidate, RerankRequest, Scalar

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]

DENSE_LIMIT = 10.0
_CACHE_LIMIT = 1 << 20


class FeatureError(ValueError):
    """A raw value that the feature spec refuses. The message names the value's place and cause."""


@dataclass(frozen=True)
class EncodedBatch:
    """Padded requests. B requests, M padded candidates, C and D columns of a feature group.

    Attributes:
        item_cat: int32 [B, M, C], embedding rows.
        item_dense: float32 [B, M, D], pairs of value and missing flag.
        user_cat: int32 [B, C']; user_dense: float32 [B, D'].
        count: int32 [B], how many candidates are real; they come first.
    """

    item_cat: Int32
    item_dense: Float32
    user_cat: Int32
    user_dense: Float32
    count: Int32


class _Rows(dict[Scalar, int]):
    """Value to embedding row, remembered: hashing each value once is what makes this fast."""

    def __init__(self, feature: Categorical) -> None:
        super().__init__()
        self.buckets = feature.buckets
        self.index = {v: i + FIRST_VALUE for i, v in enumerate(feature.vocabulary or ())}

    def __missing__(self, value: Scalar) -> int:
        if len(self) >= _CACHE_LIMIT:
            self.clear()
        row = self[value] = self._row(value)
        return row

    def _row(self, value: Scalar) -> int:
        if value is None:
            return MISSING
        text = str(value)
        utf8 = text.encode()  # first, so that a vocabulary refuses the same text as buckets do
        if self.buckets is None:
            return self.index.get(text, OUT_OF_VOCABULARY)
        return FIRST_VALUE + xxhash.xxh64_intdigest(utf8, seed=0) % self.buckets


class FeatureEncoder:
    """Encodes requests by a feature spec. Safe to share between threads."""

    def __init__(self, spec: FeatureSpec) -> None:
        self.spec = spec
        self._rows = {
            (side, feature.name): _Rows(feature)
            for side, group in (("user", spec.user), ("item", spec.item))
            for feature in group.categorical
        }

    def encode(self, requests: Sequence[RerankRequest], pad_to: int | None = None) -> EncodedBatch:
        """Encode requests into one batch.

        Args:
            requests: at least one, each with 1 to ``spec.max_candidates`` candidates.
            pad_to: M, from the largest request to any width; without it the smallest bucket of
                the spec that holds the largest request.

        Raises:
            FeatureError: a refused value, or a number of candidates out of range.
        """
        counts = np.array([len(request.candidates) for request in requests], np.int32)
        width = self._padding(requests, counts, pad_to)
        candidates = list(chain.from_iterable(request.candidates for request in requests))
        try:
            item_cat, item_dense = self._items(candidates)
            user_cat, user_dense = self._users(requests)
        except FeatureError:
            self._name_culprit(requests)
            raise
        valid = np.arange(width) < counts[:, None]
        return EncodedBatch(
            item_cat=_scatter(item_cat, valid),
            item_dense=_scatter(item_dense, valid),
            user_cat=user_cat,
            user_dense=user_dense,
            count=counts,
        )

    def categorical(self, side: str, feature: Categorical, values: Sequence[Scalar]) -> Int32:
        """Embedding rows [N] of a column of raw values."""
        kinds = set(map(type, values))
        if not kinds <= {str, int, bool, type(None)}:
            odd = next(v for v in values if type(v) not in (str, int, bool, type(None)))
            raise FeatureError(
                f"{side} feature {feature.name}: {odd!r} is {type(odd).__name__}; "
                "allowed: string, whole number, boolean or missing"
            )
        if bool in kinds:  # True == 1 would share a cache entry with the number
            values = [str(v).lower() if isinstance(v, bool) else v for v in values]
        rows = self._rows[side, feature.name]
        try:
            return np.fromiter(map(rows.__getitem__, values), np.int32, len(values))
        except ValueError as error:  # a lone surrogate, or thousands of digits
            raise FeatureError(f"{side} feature {feature.name}: not valid text: {error}") from error

    @staticmethod
    def dense(side: str, feature: Dense, values: Sequence[Scalar]) -> Float32:
        """Pairs [N, 2] of standardised value and missing flag of a column of raw values."""
        kinds = set(map(type, values))
        if not kinds <= {float, int, bool, type(None)}:
            odd = next(v for v in values if type(v) not in (float, int, bool, type(None)))
            raise FeatureError(
                f"{side} feature {feature.name}: {odd!r} is {type(odd).__name__}; "
                "allowed: number or missing"
            )
        missing = np.zeros(len(values), bool)
        if type(None) in kinds:
            missing = np.fromiter((v is None for v in values), bool, len(values))
        try:
            raw = np.array(values, np.float64)
        except OverflowError as error:
            raise FeatureError(f"{side} feature {feature.name}: number too large") from error
        return standardise(side, feature, raw, missing)

    def _padding(self, requests: Sequence[RerankRequest], counts: Int32, pad_to: int | None) -> int:
        limit = self.spec.max_candidates
        limit = limit if pad_to is None else min(limit, pad_to)
        for request, count in zip(requests, counts):
            if not 1 <= count <= limit:
                raise FeatureError(
                    f"request {request.request_id}: {count} candidates; allowed: 1 to {limit}"
                )
        if not requests:
            raise FeatureError("no request to encode; allowed: at least one")
        return pad_to if pad_to is not None else self.spec.bucket(int(counts.max()))

    def _items(self, candidates: Sequence[Candidate]) -> tuple[Int32, Float32]:
        features = list(map(attrgetter("features"), candidates))

        def column(name: str) -> list[Scalar]:
            if name in ("item", "score"):
                return list(map(attrgetter(name), candidates))
            return _column(features, name)

        return self._group("item", self.spec.item, column, len(candidates))

    def _users(self, requests: Sequence[RerankRequest]) -> tuple[Int32, Float32]:
        features = [request.user_features for request in requests]

        def column(name: str) -> list[Scalar]:
            if name == "user":
                return [request.user for request in requests]
            return _column(features, name)

        return self._group("user", self.spec.user, column, len(requests))

    def _group(
        self, side: str, group: FeatureGroup, column: Callable[[str], list[Scalar]], size: int
    ) -> tuple[Int32, Float32]:
        categories = np.zeros((size, group.categorical_columns), np.int32)
        for index, feature in enumerate(group.categorical):
            categories[:, index] = self.categorical(side, feature, column(feature.name))
        dense = np.zeros((size, group.dense_columns), np.float32)
        for index, number in enumerate(group.dense):
            pair = slice(2 * index, 2 * index + 2)
            dense[:, pair] = self.dense(side, number, column(number.name))
        return categories, dense

    def _name_culprit(self, requests: Sequence[RerankRequest]) -> None:
        """Encode one by one to say whose value was refused; only after a failure."""
        for request in requests:
            try:
                self._users([request])
            except FeatureError as error:
                raise FeatureError(f"request {request.request_id}: {error}") from None
            for index, candidate in enumerate(request.candidates):
                try:
                    self._items([candidate])
                except FeatureError as error:
                    raise FeatureError(
                        f"request {request.request_id}, candidate {index} "
                        f"(item {candidate.item}): {error}"
                    ) from None


def standardise(
    side: str, feature: Dense, values: npt.NDArray[np.float64], missing: npt.NDArray[np.bool_]
) -> Float32:
    """Pairs [N, 2] from numbers [N]; ``values`` where ``missing`` are ignored.

    Raises:
        FeatureError: NaN, an infinity, or a value below 0 under log1p.
    """
    if missing.any():
        values = np.where(missing, 0.0, values)
    if not np.isfinite(values).all():
        odd = values[~np.isfinite(values)][0]
        raise FeatureError(f"{side} feature {feature.name}: {odd}; allowed: finite or missing")
    if feature.transform == "log1p":
        if (values < 0).any():
            raise FeatureError(
                f"{side} feature {feature.name}: {values.min()}; allowed under log1p: >= 0"
            )
        values = np.log1p(values)
    with np.errstate(over="ignore"):  # an infinite quotient is clipped like any large one
        scaled = (values - feature.mean) / feature.std
    pairs = np.empty((len(values), 2), np.float32)
    pairs[:, 0] = np.minimum(np.maximum(scaled, -DENSE_LIMIT), DENSE_LIMIT)
    pairs[:, 1] = missing
    pairs[missing, 0] = 0.0
    return pairs


def _column(rows: Sequence[Mapping[str, Scalar]], name: str) -> list[Scalar]:
    """The value of a feature in each row; an absent one is None, like a missing value."""
    try:
        return list(map(itemgetter(name), rows))  # faster than get, and the usual case
    except (KeyError, TypeError):
        pass
    try:
        return [row.get(name) for row in rows]
    except AttributeError:
        odd = next(row for row in rows if not hasattr(row, "get"))
        raise FeatureError(
            f"features are {type(odd).__name__}; allowed: a mapping of names to values"
        ) from None


def _scatter(rows: npt.NDArray, valid: npt.NDArray[np.bool_]) -> npt.NDArray:  # type: ignore[type-arg]
    """Rows [sum(count), C] into a zero-padded [B, M, C]."""
    out = np.zeros((*valid.shape, rows.shape[1]), rows.dtype)
    out[valid] = rows
    return out
