"""Fits a draft feature spec on the training slice: means, deviations and small vocabularies."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from contracts.features import Categorical, Dense, FeatureGroup, FeatureSpec
from training.sources.base import SourceError

#: A vocabulary is for small enumerations; what has more values than this is to be hashed.
VOCABULARY_LIMIT = 1000

Floats = npt.NDArray[np.float64]


@dataclass
class Moments:
    """Count, mean and sum of squared deviations, merged batch by batch (Chan et al., 1979)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, values: Floats) -> None:
        """Take in values [N]."""
        if not values.size:
            return
        count, mean = values.size, float(values.mean())
        total, shift = self.count + count, mean - self.mean
        self.squares += float(((values - mean) ** 2).sum())
        self.squares += shift**2 * self.count * count / total
        self.mean += shift * count / total
        self.count = total

    @property
    def std(self) -> float:
        """Deviation over the population; 1 where the values do not vary."""
        std = float(np.sqrt(self.squares / self.count)) if self.count else 0.0
        return std if std > 1e-9 * max(1.0, abs(self.mean)) else 1.0


class SpecFitter:
    """Sees tables of training slates and turns a draft spec into a fitted one."""

    def __init__(self, draft: FeatureSpec) -> None:
        self.draft = draft
        self._moments: dict[str, Moments] = {}
        self._values: dict[str, Counter[str]] = {}

    def add(self, table: pa.Table) -> None:
        """Take in slates, as columns of ``contracts.slate_columns.slate_schema``.

        Raises:
            SourceError: a number that the encoder would refuse.
        """
        for side, group in (("user", self.draft.user), ("item", self.draft.item)):
            for dense in group.dense:
                column = _column(table, side, dense.name).drop_null()
                values = column.to_numpy().astype(np.float64)
                self._moments.setdefault(f"{side}__{dense.name}", Moments()).add(
                    _transform(side, dense, values)
                )
            for category in group.categorical:
                if category.vocabulary is not None:
                    self._count(side, category, _column(table, side, category.name))

    def _count(self, side: str, feature: Categorical, column: pa.ChunkedArray) -> None:
        counts = self._values.setdefault(f"{side}__{feature.name}", Counter())
        for pair in pc.value_counts(column.drop_null()).to_pylist():
            counts[pair["values"]] += pair["counts"]
        if not feature.vocabulary and len(counts) > VOCABULARY_LIMIT:
            raise SourceError(
                f"{side} feature {feature.name} has more than {VOCABULARY_LIMIT} values in the "
                "training slice, too many for a vocabulary; give it buckets instead"
            )

    def spec(self) -> FeatureSpec:
        """The fitted spec. Numbers have six significant digits, so that people can read them."""
        return msgspec.structs.replace(
            self.draft,
            user=self._group("user", self.draft.user),
            item=self._group("item", self.draft.item),
        )

    def _group(self, side: str, group: FeatureGroup) -> FeatureGroup:
        return FeatureGroup(
            categorical=tuple(self._category(side, one) for one in group.categorical),
            dense=tuple(self._dense(side, one) for one in group.dense),
        )

    def _category(self, side: str, feature: Categorical) -> Categorical:
        if feature.vocabulary is None or feature.vocabulary:
            return feature
        values = tuple(sorted(self._values.get(f"{side}__{feature.name}", Counter())))
        return msgspec.structs.replace(feature, vocabulary=values)

    def _dense(self, side: str, feature: Dense) -> Dense:
        moments = self._moments.get(f"{side}__{feature.name}", Moments())
        return msgspec.structs.replace(
            feature, mean=float(f"{moments.mean:.6g}"), std=float(f"{moments.std:.6g}")
        )


def _column(table: pa.Table, side: str, name: str) -> pa.ChunkedArray:
    if (side, name) == ("user", "user"):
        return table["user"]
    if side == "user":
        return table[f"user__{name}"]
    stored = {"item": "candidates", "score": "scores"}.get(name, f"item__{name}")
    return pc.list_flatten(table[stored])


def _transform(side: str, feature: Dense, values: Floats) -> Floats:
    if not np.isfinite(values).all():
        raise SourceError(f"{side} feature {feature.name}: NaN or infinite in the training slice")
    if feature.transform == "log1p":
        if (values < 0).any():
            raise SourceError(f"{side} feature {feature.name}: below 0, which log1p cannot take")
        return np.asarray(np.log1p(values))
    return values
