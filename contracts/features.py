"""The feature spec: which raw features exist and how they become tensors.

A spec is a YAML file; its hash travels with every dataset, checkpoint and release. The rules by
which a value becomes a number are in ``contracts/encoding.py``; docs/features.md states them for
ranking servers written in other languages.
"""

from __future__ import annotations

import math
import re
from typing import Literal

from contracts.reading import Strict, stable_hash

#: Row 0 of every embedding is "missing", row 1 "out of vocabulary"; values start at 2.
MISSING, OUT_OF_VOCABULARY, FIRST_VALUE = 0, 1, 2
MAX_CANDIDATES = 512
#: The longest list to show, and to learn from.
MAX_LIST = 64

_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Categorical(Strict, kw_only=True, frozen=True):
    """A categorical feature: hashed into ``buckets``, or looked up in ``vocabulary``.

    The reserved name ``item`` (item side) reads the candidate's own id and ``user`` (user side)
    the request's user id, so that identities need not be repeated among the features.
    """

    name: str
    width: int
    buckets: int | None = None
    vocabulary: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _check_name(self.name)
        if (self.buckets is None) == (self.vocabulary is None):
            raise ValueError(f"feature {self.name}: give exactly one of buckets and vocabulary")
        if self.buckets is not None and not 1 <= self.buckets <= 100_000_000:
            raise ValueError(f"feature {self.name}: buckets must be from 1 to 100000000")
        if self.vocabulary is not None and len(set(self.vocabulary)) != len(self.vocabulary):
            raise ValueError(f"feature {self.name}: vocabulary holds a value twice")
        if any(map(_has_surrogate, self.vocabulary or ())):
            raise ValueError(f"feature {self.name}: vocabulary holds invalid Unicode")
        if not 1 <= self.width <= 1024:
            raise ValueError(f"feature {self.name}: width must be from 1 to 1024")

    @property
    def rows(self) -> int:
        """Rows of the embedding table: the values, and the two reserved rows."""
        values = self.buckets if self.vocabulary is None else len(self.vocabulary)
        return (values or 0) + FIRST_VALUE


class Dense(Strict, kw_only=True, frozen=True):
    """A number, transformed and then standardised: ``(transform(x) - mean) / std``."""

    name: str
    transform: Literal["identity", "log1p"] = "identity"
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        _check_name(self.name)
        if not math.isfinite(self.mean):
            raise ValueError(f"feature {self.name}: mean must be finite")
        if not (math.isfinite(self.std) and self.std > 0):
            raise ValueError(f"feature {self.name}: std must be finite and above 0")


class FeatureGroup(Strict, kw_only=True, frozen=True):
    """The features of one side (user or item), in the order of their tensor columns."""

    categorical: tuple[Categorical, ...] = ()
    dense: tuple[Dense, ...] = ()

    def __post_init__(self) -> None:
        names = [f.name for f in self.categorical] + [f.name for f in self.dense]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"feature named twice: {', '.join(twice)}")

    @property
    def categorical_columns(self) -> int:
        """Columns of the categorical tensor; a group without any has one constant column."""
        return max(1, len(self.categorical))

    @property
    def dense_columns(self) -> int:
        """Columns of the dense tensor: a value and a missing flag each; at least one pair."""
        return 2 * max(1, len(self.dense))


class FeedbackKind(Strict, kw_only=True, frozen=True):
    """What a user can do with a shown item: binary (0 or 1) or continuous (>= 0)."""

    kind: str
    type: Literal["binary", "continuous"]

    def __post_init__(self) -> None:
        _check_name(self.kind)


class FeatureSpec(Strict, kw_only=True, frozen=True):
    """Everything that turns a request into tensors, and what feedback means.

    Attributes:
        user, item: feature groups. A dense item feature named ``score`` reads the candidate's
            score of the previous stage.
        list_size: n, the length of the list to show.
        candidate_buckets: paddings of the candidate axis, ascending; the last is the maximum.
        feedback: the kinds that are recorded.
        utility: the kind that is U in Eq. 7 of the paper.
    """

    version: Literal[1] = 1
    user: FeatureGroup
    item: FeatureGroup
    list_size: int
    candidate_buckets: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    feedback: tuple[FeedbackKind, ...]
    utility: str

    def __post_init__(self) -> None:
        if not 1 <= self.list_size <= MAX_LIST:
            raise ValueError(f"list_size is {self.list_size}; allowed: 1 to {MAX_LIST}")
        buckets = self.candidate_buckets
        if not buckets or list(buckets) != sorted(set(buckets)) or buckets[0] < 1:
            raise ValueError("candidate_buckets must be positive and ascending")
        if buckets[-1] > MAX_CANDIDATES:
            raise ValueError(f"candidate_buckets may not exceed {MAX_CANDIDATES}")
        kinds = [feedback.kind for feedback in self.feedback]
        if len(set(kinds)) != len(kinds):
            raise ValueError("a feedback kind is named twice")
        for side, group in (("user", self.user), ("item", self.item)):
            if any(feature.name == side for feature in group.dense):
                raise ValueError(f"{side} feature {side} is an identity; allowed: categorical")
        if any(feature.name == "score" for feature in self.item.categorical):
            raise ValueError("item feature score is the previous stage's number; allowed: dense")
        if self.utility not in kinds:
            raise ValueError(f"utility is {self.utility!r}; allowed: {', '.join(kinds)}")

    @property
    def utility_kind(self) -> FeedbackKind:
        return next(feedback for feedback in self.feedback if feedback.kind == self.utility)

    @property
    def max_candidates(self) -> int:
        return self.candidate_buckets[-1]

    def bucket(self, candidates: int) -> int:
        """The smallest padding that holds ``candidates``; raises ValueError beyond the last."""
        for bucket in self.candidate_buckets:
            if candidates <= bucket:
                return bucket
        raise ValueError(f"{candidates} candidates; allowed: 1 to {self.max_candidates}")

    def hash(self) -> str:
        return stable_hash(self)


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"name {name!r}; allowed: lower-case letters, digits and _")
