"""Columns of a slate table as arrays, and what a damaged table is refused for.

A table may come from any writer of the schema, and a gather by a wrong index raises nothing: what
contracts.slates.Slate promises of one slate is checked here for all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from contracts.encoding import FeatureEncoder, Float32, Int32, standardise
from contracts.features import MAX_LIST, MISSING, Categorical, FeatureGroup
from contracts.reading import ContractError

Ids = npt.NDArray[np.object_]
Bools = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]


class ListColumn:
    """A list column: its flat values, its lengths, and padding by them."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        array = whole(column)
        self.values = array.flatten()
        self.lengths: Int64 = pc.list_value_length(array).to_numpy().astype(np.int64)
        self.total = len(self.values)
        width = max(1, int(self.lengths.max(initial=0)))
        self.valid: Bools = np.arange(width) < self.lengths[:, None]

    def pad(self, flat: npt.NDArray, fill: object) -> npt.NDArray:  # type: ignore[type-arg]
        """Flat values [total, ...] as [S, width, ...]."""
        out = np.full((*self.valid.shape, *flat.shape[1:]), fill, dtype=flat.dtype)
        out[self.valid] = flat
        return out


def whole(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def aligned(table: pa.Table, name: str, beside: ListColumn, what: str) -> pa.Array:
    """Flat values of a list column that runs beside another; a null list is all missing.

    Raises:
        ContractError: a list of another length.
    """
    array = whole(table[name])
    null: Bools = array.is_null().to_numpy(zero_copy_only=False)
    own = pc.fill_null(pc.list_value_length(array), 0).to_numpy()
    wrong = ~null & (own != beside.lengths)
    if wrong.any():
        row = int(wrong.argmax())
        raise ContractError(
            f"slate {table['request_id'][row]}: {name} holds {own[row]} values for "
            f"{beside.lengths[row]} {what}"
        )
    flat = array.flatten()
    if not null.any():
        return flat
    missing = np.repeat(null, beside.lengths)
    index = np.cumsum(~missing) - 1
    return flat.take(pa.array(index, pa.int64(), mask=missing))


def feedback_values(table: pa.Table, name: str, exposed: ListColumn) -> npt.NDArray[np.float64]:
    """Flat feedback of one kind, 0 where there is none."""
    flat = aligned(table, name, exposed, "shown items")
    values: npt.NDArray[np.float64] = pc.fill_null(flat, 0.0).to_numpy()
    odd = ~(np.isfinite(values) & (values >= 0))
    if odd.any():
        raise ContractError(f"{name}: {values[odd][0]}; allowed: a finite number, 0 or more")
    return values


def log_probs(table: pa.Table, exposed: ListColumn) -> npt.NDArray[np.float64]:
    """Flat log-probabilities of the shown choices as they stand, NaN where there are none."""
    flat = aligned(table, "log_prob", exposed, "shown items")
    values: npt.NDArray[np.float64] = flat.to_numpy(zero_copy_only=False).astype(np.float64)
    return values


def check_types(file: Path, table: pa.Table, schema: pa.Schema) -> None:
    """Raise ContractError for a column of another type, or without a value where one must be."""
    for field in schema:
        column = table[field.name]
        if _plain(column.type) != field.type:
            raise ContractError(
                f"{file}: column {field.name} is {column.type}; allowed: {field.type}"
            )
        if field.nullable:
            continue
        lists = pa.types.is_list(field.type)
        inside = sum(chunk.flatten().null_count for chunk in column.chunks) if lists else 0
        if column.null_count or inside:
            raise ContractError(f"{file}: column {field.name} holds nulls; allowed: none")


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type without what a writer may promise of nulls within its lists."""
    return pa.list_(kind.value_type) if pa.types.is_list(kind) else kind


def check_sizes(ids: Ids, candidates: Int64, shown: Int64, most: int) -> None:
    """Raise ContractError for numbers of candidates or shown items that do not fit the model."""
    wrong = (candidates < 1) | (candidates > most)
    if wrong.any():
        row = int(wrong.argmax())
        raise ContractError(f"slate {ids[row]}: {candidates[row]} candidates; allowed: 1 to {most}")
    if (shown > MAX_LIST).any():
        row = int((shown > MAX_LIST).argmax())
        raise ContractError(
            f"slate {ids[row]}: {shown[row]} items shown; allowed: up to {MAX_LIST}"
        )


def check_exposed(ids: Ids, exposed: Int64, valid: Bools, candidates: Int64) -> None:
    """Raise ContractError unless each list [S, N] names candidates of its slate, each once."""
    outside = (valid & ((exposed < 0) | (exposed >= candidates[:, None]))).any(axis=1)
    if outside.any():
        row = int(outside.argmax())
        raise ContractError(
            f"slate {ids[row]}: exposed must hold indices 0 to {candidates[row] - 1}"
        )
    ascending = np.sort(exposed, axis=1)
    twice = ((ascending[:, 1:] == ascending[:, :-1]) & (ascending[:, 1:] >= 0)).any(axis=1)
    if twice.any():
        raise ContractError(f"slate {ids[int(twice.argmax())]}: exposed names a candidate twice")


def encode_group(
    encoder: FeatureEncoder,
    side: str,
    group: FeatureGroup,
    column: Callable[[str], pa.Array],
    size: int,
) -> tuple[Int32, Float32]:
    """Embedding rows [size, C] and dense pairs [size, E] of the columns of a feature group."""
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
