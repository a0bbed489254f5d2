"""The slates of a Parquet folder as padded arrays, encoded once.

Axes: S slates, M padded candidates, N padded list positions, K feedback kinds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from contracts.encoding import FeatureEncoder, Float32, Int32, standardise
from contracts.features import MISSING, Categorical, FeatureGroup, FeatureSpec
from contracts.reading import ContractError
from contracts.slate_columns import slate_schema
from training.data.batch import Batch

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SlateArrays:
    """Every slate of a split; see Batch for the arrays. ``user`` and ``time`` are for grouping."""

    spec: FeatureSpec
    item_cat: Int32
    item_dense: Float32
    user_cat: Int32
    user_dense: Float32
    count: Int32
    exposed: Int64
    feedback: Float32
    request_id: npt.NDArray[np.object_]
    user: npt.NDArray[np.object_]
    time: Int64
    items: npt.NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.count)

    @property
    def utility(self) -> Float32:
        """U of Eq. 7 [S, N]: the binary feedback, or the continuous one as x / (x + median)."""
        kinds = [one.kind for one in self.spec.feedback]
        value = self.feedback[:, :, kinds.index(self.spec.utility)]
        if self.spec.utility_kind.type == "binary":
            return (value > 0).astype(np.float32)
        positive = value[value > 0]
        middle = float(np.median(positive)) if positive.size else 1.0
        return (value / (value + middle)).astype(np.float32)

    def batch(self, rows: Int64, device: torch.device | None = None) -> Batch:
        """The given slates, with M and N trimmed to the largest among them."""
        m = int(self.count[rows].max())
        n = max(1, int((self.exposed[rows] >= 0).sum(axis=1).max()))
        arrays = {
            "item_cat": self.item_cat[rows, :m],
            "item_dense": self.item_dense[rows, :m],
            "user_cat": self.user_cat[rows],
            "user_dense": self.user_dense[rows],
            "count": self.count[rows],
            "exposed": self.exposed[rows, :n],
            "utility": self._utility_rows(rows)[:, :n],
            "feedback": self.feedback[rows, :n],
            "row": rows,
        }
        out = Batch(**{name: torch.from_numpy(value) for name, value in arrays.items()})
        return out if device is None else out.to(device)

    def _utility_rows(self, rows: Int64) -> Float32:
        # Computed once for the whole split: the median of a continuous utility is the split's.
        if not hasattr(self, "_utility"):
            object.__setattr__(self, "_utility", self.utility)
        return self._utility[rows]  # type: ignore[attr-defined, no-any-return]

    def batches(self, size: int, device: torch.device | None = None) -> Iterator[Batch]:
        """All slates in order."""
        for start in range(0, len(self), size):
            yield self.batch(np.arange(start, min(start + size, len(self))), device)

    def take(self, rows: Int64) -> SlateArrays:
        """A part of the slates."""
        names = [name for name in self.__dataclass_fields__ if name != "spec"]
        return SlateArrays(spec=self.spec, **{name: getattr(self, name)[rows] for name in names})


def load_slates(folder: Path, spec: FeatureSpec, limit: int | None = None) -> SlateArrays:
    """Read every Parquet file of a folder, in the order of their names.

    Raises:
        ContractError: no file, an empty split, or slates of another feature spec.
    """
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise ContractError(f"{folder}: no Parquet file; make them with training/prepare.py")
    schema = slate_schema(spec)
    tables = []
    for file in files:
        table = pq.read_table(file)
        found = (table.schema.metadata or {}).get(b"feature_spec", b"").decode()
        if found != spec.hash():
            raise ContractError(
                f"{file}: made with feature spec {found[:12] or '(none)'}, "
                f"expected {spec.hash()[:12]}; prepare the slates again with this spec"
            )
        tables.append(table.select(schema.names))
    table = pa.concat_tables(tables)
    if limit is not None:
        table = table.slice(0, limit)
    if table.num_rows == 0:
        raise ContractError(f"{folder}: no slates")
    return encode_table(table.combine_chunks(), spec)


def encode_table(table: pa.Table, spec: FeatureSpec) -> SlateArrays:
    """Encode a table of contracts.slate_columns.slate_schema(spec), a column at a time."""
    encoder = FeatureEncoder(spec)
    items = _List(table["candidates"])
    item_cat, item_dense = _group(
        encoder, "item", spec.item, lambda name: _item_column(table, name), items.total
    )
    user_cat, user_dense = _group(
        encoder, "user", spec.user, lambda name: _user_column(table, name), table.num_rows
    )
    exposed = _List(table["exposed"])
    feedback = [
        exposed.pad(_flat_numbers(table[f"feedback__{one.kind}"], exposed.total), 0.0)
        for one in spec.feedback
    ]
    names = np.asarray(items.values.to_numpy(zero_copy_only=False), dtype=object)
    return SlateArrays(
        spec=spec,
        item_cat=items.pad(item_cat, MISSING),
        item_dense=items.pad(item_dense, 0.0),
        user_cat=user_cat,
        user_dense=user_dense,
        count=items.lengths.astype(np.int32),
        exposed=exposed.pad(exposed.values.to_numpy().astype(np.int64), -1),
        feedback=np.stack(feedback, axis=-1).astype(np.float32),
        request_id=table["request_id"].to_numpy().astype(object),
        user=table["user"].to_numpy().astype(object),
        time=table["time"].to_numpy(),
        items=items.pad(names, ""),
    )


class _List:
    """A list column: its flat values, its lengths, and padding by them."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        array = _whole(column)
        self.values = array.flatten()
        self.lengths = pc.list_value_length(array).to_numpy()
        self.total = len(self.values)
        width = max(1, int(self.lengths.max(initial=0)))
        self.valid = np.arange(width) < self.lengths[:, None]

    def pad(self, flat: npt.NDArray, fill: object) -> npt.NDArray:  # type: ignore[type-arg]
        """Flat values [total, ...] as [S, width, ...]."""
        out = np.full((*self.valid.shape, *flat.shape[1:]), fill, dtype=flat.dtype)
        out[self.valid] = flat
        return out


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _item_column(table: pa.Table, name: str) -> pa.Array:
    own = {"item": "candidates", "score": "scores"}
    return _whole(table[own.get(name, f"item__{name}")]).flatten()


def _user_column(table: pa.Table, name: str) -> pa.Array:
    return _whole(table["user" if name == "user" else f"user__{name}"])


def _flat_numbers(column: pa.ChunkedArray, total: int) -> npt.NDArray[np.float64]:
    flat = _whole(column).flatten()
    if len(flat) != total:
        raise ContractError(f"a feedback column holds {len(flat)} values for {total} shown items")
    return pc.fill_null(flat, 0.0).to_numpy()  # type: ignore[no-any-return]


def _group(  # type: ignore[no-untyped-def]
    encoder: FeatureEncoder, side: str, group: FeatureGroup, column, size: int
) -> tuple[Int32, Float32]:
    categories = np.zeros((size, group.categorical_columns), np.int32)
    for index, feature in enumerate(group.categorical):
        categories[:, index] = _rows(encoder, side, feature, column(feature.name))
    dense = np.zeros((size, group.dense_columns), np.float32)
    for index, number in enumerate(group.dense):
        values = column(number.name)
        missing = values.is_null().to_numpy(zero_copy_only=False)
        filled = pc.fill_null(values, 0.0).to_numpy()
        dense[:, 2 * index : 2 * index + 2] = standardise(side, number, filled, missing)
    return categories, dense


def _rows(encoder: FeatureEncoder, side: str, feature: Categorical, values: pa.Array) -> Int32:
    """Embedding rows of a text column; each distinct value is hashed once."""
    coded = values.dictionary_encode()
    rows = encoder.categorical(side, feature, coded.dictionary.to_pylist())
    codes = coded.indices
    missing = codes.is_null().to_numpy(zero_copy_only=False)
    picked = np.append(rows, np.int32(MISSING))[
        np.where(missing, len(rows), pc.fill_null(codes, 0).to_numpy())
    ]
    return picked.astype(np.int32)
