"""The slates of a Parquet folder as padded arrays, encoded once.

Axes: S slates, M padded candidates, N padded list positions, K feedback kinds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from contracts.encoding import FeatureEncoder, Float32, Int32
from contracts.features import MISSING, FeatureSpec
from contracts.reading import ContractError
from contracts.slate_columns import slate_schema
from training.data.batch import Batch
from training.data.columns import (
    ListColumn,
    aligned,
    check_exposed,
    check_sizes,
    check_types,
    encode_group,
    feedback_values,
    log_probs,
    whole,
)

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SlateArrays:
    """Every slate of a split; see Batch for the arrays. ``user`` and ``time`` are for grouping.

    ``utility_scale`` is the median of a continuous utility's positive values in the split that
    it was taken from. For off-policy evaluation: ``log_prob`` [S, N] of each shown choice (NaN
    after the end, and in slates without any), ``temperature`` [S] (0 where it is not known) and
    ``fallback`` [S] ("" where the policy's own list was shown), as in contracts.slates.Slate.
    """

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
    utility_scale: float
    log_prob: Float64
    temperature: Float64
    fallback: npt.NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.count)

    @cached_property
    def utility(self) -> Float32:
        """U of Eq. 7 [S, N]: the binary feedback, or the continuous one as x / (x + scale)."""
        value = self.feedback[:, :, _utility_column(self.spec)]
        if self.spec.utility_kind.type == "binary":
            return (value > 0).astype(np.float32)
        return (value / (value + self.utility_scale)).astype(np.float32)

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
            "utility": self.utility[rows, :n],
            "feedback": self.feedback[rows, :n],
            "row": rows,
        }
        out = Batch(**{name: torch.from_numpy(value) for name, value in arrays.items()})
        return out if device is None else out.to(device)

    def batches(self, size: int, device: torch.device | None = None) -> Iterator[Batch]:
        """All slates in order."""
        for start in range(0, len(self), size):
            yield self.batch(np.arange(start, min(start + size, len(self))), device)

    def take(self, rows: Int64) -> SlateArrays:
        """A part of the slates."""
        names = [one.name for one in fields(self) if one.name not in ("spec", "utility_scale")]
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


def load_slates(
    folder: Path, spec: FeatureSpec, limit: int | None = None, like: SlateArrays | None = None
) -> SlateArrays:
    """Read every Parquet file of a folder, in the order of their names.

    Args:
        limit: read the first so many slates only.
        like: slates whose scale of a continuous utility these share: the training slates.

    Raises:
        ContractError: no file, one that is damaged, an empty split, slates of another feature
            spec, or ones that break the contract.
    """
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise ContractError(
            f"{folder}: no Parquet file: the split is empty; prepare more lists, or split at "
            "other days (training/prepare.py)"
        )
    table = pa.concat_tables([_read(file, spec) for file in files])
    if limit is not None:
        table = table.slice(0, limit)
    if table.num_rows == 0:
        raise ContractError(f"{folder}: no slates")
    try:
        slates = encode_table(table.combine_chunks(), spec)
    except ValueError as error:
        raise ContractError(f"{folder}: {error}") from error
    return slates if like is None else replace(slates, utility_scale=like.utility_scale)


def _read(file: Path, spec: FeatureSpec) -> pa.Table:
    try:
        table = pq.read_table(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise ContractError(f"{file}: cannot be read: {error}") from error
    found = (table.schema.metadata or {}).get(b"feature_spec", b"").decode()
    if found != spec.hash():
        raise ContractError(
            f"{file}: made with feature spec {found[:12] or '(none)'}, "
            f"expected {spec.hash()[:12]}; prepare the slates again with this spec"
        )
    schema = slate_schema(spec)
    if missing := [name for name in schema.names if name not in table.column_names]:
        raise ContractError(f"{file}: no column {', '.join(missing)}; prepare the slates again")
    table = table.select(schema.names)
    check_types(file, table, schema)
    return table


def encode_table(table: pa.Table, spec: FeatureSpec) -> SlateArrays:
    """Encode a table of contracts.slate_columns.slate_schema(spec), a column at a time.

    Raises:
        ContractError: a slate that breaks the contract, or that the model cannot hold.
        FeatureError: a value that the feature spec refuses.
    """
    encoder = FeatureEncoder(spec)
    ids = table["request_id"].to_numpy().astype(object)
    items, exposed = ListColumn(table["candidates"]), ListColumn(table["exposed"])
    shown = exposed.pad(exposed.values.to_numpy().astype(np.int64), -1)
    check_sizes(ids, items.lengths, exposed.lengths, spec.max_candidates)
    check_exposed(ids, shown, exposed.valid, items.lengths)

    def item_column(name: str) -> pa.Array:
        if name == "item":
            return items.values
        column = "scores" if name == "score" else f"item__{name}"
        return aligned(table, column, items, "candidates")

    def user_column(name: str) -> pa.Array:
        return whole(table["user" if name == "user" else f"user__{name}"])

    item_cat, item_dense = encode_group(encoder, "item", spec.item, item_column, items.total)
    user_cat, user_dense = encode_group(encoder, "user", spec.user, user_column, table.num_rows)
    feedback = np.stack(
        [
            exposed.pad(feedback_values(table, f"feedback__{one.kind}", exposed), 0.0)
            for one in spec.feedback
        ],
        axis=-1,
    ).astype(np.float32)
    names = np.asarray(items.values.to_numpy(zero_copy_only=False), dtype=object)
    return SlateArrays(
        spec=spec,
        item_cat=items.pad(item_cat, MISSING),
        item_dense=items.pad(item_dense, 0.0),
        user_cat=user_cat,
        user_dense=user_dense,
        count=items.lengths.astype(np.int32),
        exposed=shown,
        feedback=feedback,
        request_id=ids,
        user=table["user"].to_numpy().astype(object),
        time=table["time"].to_numpy(),
        items=items.pad(names, ""),
        utility_scale=_utility_scale(feedback, spec),
        log_prob=exposed.pad(log_probs(table, exposed), np.nan),
        temperature=pc.fill_null(whole(table["temperature"]), 0.0).to_numpy(),
        fallback=np.array(pc.fill_null(whole(table["fallback"]), "").to_pylist(), object),
    )


def _utility_column(spec: FeatureSpec) -> int:
    return [one.kind for one in spec.feedback].index(spec.utility)


def _utility_scale(feedback: Float32, spec: FeatureSpec) -> float:
    value = feedback[:, :, _utility_column(spec)]
    positive = value[value > 0]
    return float(np.median(positive)) if positive.size else 1.0
