"""The feedback table, day by day, as the columns that an experiment is judged by.

Only those columns are read, in record batches, and a day at a time (the table's partitions), so
that memory follows the units and one day's lists, not the table. Lists belong to an experiment by
the label in their ``arm`` ("experiment/arm", joined by "," over layers).

Each closed slate is in the table once: the consumer commits rows and Kafka positions together
(docs/feedback_table.md), so request ids are not checked again here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from contracts.assignment import arms_of
from contracts.experiment_metrics import Metric
from contracts.experiments import Experiment
from contracts.feedback_table import DAY, day_of, spec_of_table
from contracts.reading import ContractError
from deploy.analysis.units import Floats, Hashes, Ints, hash_units

#: The largest feedback that is believed. An event may hold any finite number, and the square of one
#: that is absurd would make every figure infinite, and a watch blind.
LARGEST = 1e12
#: Rows of a batch.
BATCH = 1 << 16
#: Columns of every row's sums; the sums of feedback by kind come after them.
LISTS, ITEMS, FALLBACKS = range(3)
#: ``arm`` of a list that is not of the experiment, or of an arm that it has not.
OUTSIDE, UNKNOWN = -1, -2


@dataclass(frozen=True)
class Columns:
    """L lists of one batch.

    Attributes:
        unit: hash of each unit [L]; time: ms [L].
        arm: index into the experiment's arms, or OUTSIDE, or UNKNOWN [L].
        segment: index into ``segments`` [L].
        sums: LISTS, ITEMS, FALLBACKS and the feedback of each kind [L, 3 + kinds].
        bad_values: feedback values that were no finite number, or beyond LARGEST, and count as
            nothing.
    """

    unit: Hashes
    time: Ints
    arm: Ints
    segment: Ints
    segments: tuple[str, ...]
    sums: Floats
    bad_values: int


def metrics_of(experiment: Experiment) -> dict[str, Metric]:
    """Every metric of feedback that the experiment names, by name, the primary first."""
    guarded = [g.metric for g in experiment.guardrails if isinstance(g.metric, Metric)]
    return {m.name: m for m in (experiment.primary, *experiment.secondary, *guarded)}


class ExperimentTable:
    """A feedback table, read as of when it was opened, for one experiment.

    Attributes:
        kinds: of feedback that the metrics need; their sums follow FALLBACKS in this order.
        version: of the table. days: that have rows, sorted. rows: of all days, 0 if unknown.
    """

    def __init__(
        self,
        uri: str,
        experiment: Experiment,
        segment: str | None = None,
        storage_options: Mapping[str, str] | None = None,
    ) -> None:
        """Open the table.

        Args:
            segment: what parts the lists: "surface", or a user feature by name.

        Raises:
            ContractError: there is no feedback table, or it has not what the experiment names.
        """
        self.uri, self._experiment = uri, experiment
        try:
            table = DeltaTable(uri, storage_options=dict(storage_options or {}) or None)
            self.version: int = table.version()
            properties = table.metadata().configuration
            self._dataset: Any = table.to_pyarrow_dataset()
            parts = table.partitions()
            actions = pa.table(table.get_add_actions(flatten=True))
        except TableNotFoundError as error:
            raise ContractError(
                f"{uri}: no Delta table there; give the folder or s3:// address that "
                "streaming/consume.py writes to"
            ) from error
        except (DeltaError, OSError, ValueError) as error:
            raise ContractError(f"{uri}: cannot be read as a Delta table: {error}") from error
        spec = spec_of_table(properties, uri)
        metrics = metrics_of(experiment)
        known = [feedback.kind for feedback in spec.feedback]
        for metric in metrics.values():
            if metric.kind not in known:
                raise ContractError(
                    f"{uri}: metric {metric.name} of experiment {experiment.name} is made of "
                    f"feedback {metric.kind!r}; the table has: {', '.join(known)}"
                )
        self.kinds = tuple(dict.fromkeys(metric.kind for metric in metrics.values()))
        self._segment = self._segment_column(segment)
        self.days = tuple(sorted({str(part[DAY]) for part in parts if part[DAY] is not None}))
        known_counts = "num_records" in actions.column_names  # a writer may leave them out
        self.rows: int = (known_counts and pc.sum(actions["num_records"]).as_py()) or 0

    def batches(self, day: str, first: int, end: int) -> Iterator[Columns]:
        """The lists of one day with first <= time < end, on the surfaces of the experiment.

        Raises:
            ContractError: the table's files cannot be read.
        """
        field = pads.field
        keep = (field(DAY) == day) & (field("time") >= first) & (field("time") < end)
        if self._experiment.surfaces:
            keep &= field("surface").isin(list(self._experiment.surfaces))
        by_user = self._experiment.unit == "user"
        unit = "user" if by_user else "request_id"
        names = [unit, "time", "arm", "fallback", "exposed"]
        names += [f"feedback__{kind}" for kind in self.kinds]
        names += [self._segment] if self._segment and self._segment not in names else []
        try:
            for batch in self._dataset.to_batches(
                columns=names, filter=keep, batch_size=BATCH, batch_readahead=2,
                fragment_readahead=1,
            ):  # fmt: skip
                if batch.num_rows:
                    yield self._columns(batch, unit)
        except (OSError, ValueError) as error:  # Arrow's own errors among them
            raise ContractError(
                f"{self.uri}: day {day} of version {self.version} cannot be read: {error}"
            ) from error

    def future(self, after: int) -> int:
        """Lists of the experiment with a time at or after ``after``: of a clock that jumped."""
        counted = 0
        for day in self.days:
            if day >= day_of(after):
                for columns in self.batches(day, after, np.iinfo(np.int64).max):
                    counted += int((columns.arm != OUTSIDE).sum())
        return counted

    def _segment_column(self, segment: str | None) -> str | None:
        if segment is None:
            return None
        column = segment if segment == "surface" else f"user__{segment}"
        names = self._dataset.schema.names
        if column not in names:
            allowed = ["surface", *(n[6:] for n in names if n.startswith("user__"))]
            raise ContractError(
                f"{self.uri}: no segment {segment!r}; allowed: {', '.join(allowed)}"
            )
        if not pa.types.is_string(kind := self._dataset.schema.field(column).type) and not (
            pa.types.is_large_string(kind) or str(kind) == "string_view"
        ):
            raise ContractError(f"{self.uri}: segment {segment!r} is {kind}; allowed: categories")
        return column

    def _columns(self, batch: pa.RecordBatch, unit: str) -> Columns:
        units, codes = _encoded(batch.column(unit))
        labels, label_codes = _encoded(batch.column("arm"))
        arms = np.array([self._arm(label) for label in labels], np.int64)
        segments, segment_codes = (
            _encoded(batch.column(self._segment))
            if self._segment
            else ([""], np.zeros(batch.num_rows, np.int64))
        )
        items = pc.fill_null(pc.list_value_length(batch.column("exposed")), 0)
        fallback = pc.fill_null(pc.not_equal(batch.column("fallback"), ""), False)
        columns = [np.ones(batch.num_rows), _numpy(items), _numpy(fallback)]
        bad = 0
        for kind in self.kinds:
            sums, wrong = list_sums(batch.column(f"feedback__{kind}"))
            columns.append(sums)
            bad += int(wrong[arms[label_codes] >= 0].sum())
        return Columns(
            unit=hash_units(units)[codes],
            time=batch.column("time").to_numpy(zero_copy_only=False).astype(np.int64),
            arm=arms[label_codes],
            segment=segment_codes,
            segments=tuple(segments),
            sums=np.stack(columns, axis=1).astype(np.float64),
            bad_values=bad,
        )

    def _arm(self, label: str) -> int:
        name = arms_of(label).get(self._experiment.name)
        if name is None:
            return OUTSIDE
        names: Sequence[str] = [arm.name for arm in self._experiment.arms]
        return names.index(name) if name in names else UNKNOWN


def list_sums(column: pa.Array) -> tuple[Floats, Ints]:
    """Sum of each list's finite values [L], 0 for a null; and how many values are not finite [L].

    A null within a list is an item without feedback, no bad value.
    """
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    lengths = _numpy(pc.fill_null(pc.list_value_length(column), 0)).astype(np.int64)
    values = column.flatten()
    missing = values.is_null().to_numpy(zero_copy_only=False)
    flat = values.fill_null(0.0).to_numpy(zero_copy_only=False).astype(np.float64)
    finite = np.abs(flat) <= LARGEST  # False for NaN
    owner = np.repeat(np.arange(len(lengths)), lengths)
    sums = np.bincount(owner, np.where(finite, flat, 0.0), minlength=len(lengths))
    bad = np.bincount(owner[~finite & ~missing], minlength=len(lengths))
    return sums.astype(np.float64), bad.astype(np.int64)


def _numpy(array: Any) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return values


def _encoded(column: Any) -> tuple[list[str], Ints]:
    """The distinct texts of a column, a null as "", and the index of each row's."""
    coded = pc.fill_null(column.cast(pa.string()), "").dictionary_encode()
    return coded.dictionary.to_pylist(), _numpy(coded.indices).astype(np.int64)
