"""Rows of the feedback table as a source of slates: what cannot be used is dropped and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from contracts.datasets import SplitTimes
from contracts.features import FeatureSpec
from contracts.slate_columns import from_table
from training.sources.base import SourceError, Tally

SOURCE = "feedback_table"
#: The reason of rows that are there twice.
REPEATED = "request seen before"
_BATCH = 1024
#: Log-probabilities this far above 0 are rounding.
ROUNDING = 1e-4

Bools = npt.NDArray[np.bool_]


class TableSlates:
    """The usable rows of a table (``usable_rows``), split by time, under the spec as it is.

    ``valid`` and ``test`` are the shares of the newest slates that are held out: test is the
    newest of all. ``identity`` says which rows of which table these are.
    """

    name = SOURCE

    def __init__(
        self,
        rows: pa.Table,
        spec: FeatureSpec,
        identity: dict[str, Any],
        fingerprint: str,
        valid: float,
        test: float,
    ) -> None:
        self.spec = spec
        self._rows, self._identity, self._fingerprint = rows, identity, fingerprint
        self.split_times = split_times(rows["time"].to_numpy(), valid, test)

    def settings(self) -> dict[str, Any]:
        return self._identity

    def fingerprint(self) -> str:
        return self._fingerprint

    def expected_lists(self) -> int:
        return int(self._rows.num_rows)

    def slates(self, tally: Tally) -> Iterator[Any]:
        """All rows in the order of time."""
        for start in range(0, self._rows.num_rows, _BATCH):
            yield from from_table(self._rows.slice(start, _BATCH), self.spec)
        tally.keep("lists", self._rows.num_rows)


def split_times(times: npt.NDArray[np.int64], valid: float, test: float) -> SplitTimes:
    """Where valid and test begin, for times in ascending order; raises SourceError for none."""
    if not len(times):
        raise SourceError("no slate to split")
    held = [min(len(times) - 1, int(len(times) * (1 - share))) for share in (valid + test, test)]
    return SplitTimes(valid_from=int(times[held[0]]), test_from=int(times[held[1]]))


def usable_rows(rows: pa.Table, spec: FeatureSpec) -> tuple[pa.Table, Counter[str]]:
    """The rows that a model of this spec can take, and how many are dropped for what.

    The consumer writes what was shown; a list may hold more candidates than the model takes, or
    a number that the feature encoder refuses. One such slate must not stop a refresh.
    """
    reasons: dict[str, Bools] = {
        REPEATED: _repeated(rows["request_id"]),
        "nothing shown": _lengths(rows["exposed"]) < 1,
        "more candidates than the model takes": _lengths(rows["candidates"]) > spec.max_candidates,
        "feature or score that is not finite": _odd_features(rows, spec),
        "feedback that is negative or not finite": _odd_feedback(rows, spec),
        "log-probability that none can be": _any_in_row(
            rows["log_prob"], lambda values: ~(np.isfinite(values) & (values <= ROUNDING))
        ),
    }
    keep = np.ones(rows.num_rows, bool)
    dropped: Counter[str] = Counter()
    for reason, odd in reasons.items():
        count = int((odd & keep).sum())
        if count:
            dropped[reason] = count
        keep &= ~odd
    return rows.filter(pa.array(keep)), dropped


def _repeated(ids: pa.ChunkedArray) -> Bools:
    """All but the first row of each id."""
    encoded = ids.combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    _, first = np.unique(encoded, return_index=True)
    repeated = np.ones(len(encoded), bool)
    repeated[first] = False
    return repeated


def _lengths(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    return np.asarray(pc.fill_null(pc.list_value_length(column), 0), np.int64)


def _odd_features(rows: pa.Table, spec: FeatureSpec) -> Bools:
    odd = np.zeros(rows.num_rows, bool)
    for feature in spec.user.dense:
        values = np.asarray(pc.fill_null(rows[f"user__{feature.name}"], 0.0), np.float64)
        odd |= ~np.isfinite(values)
    for feature in spec.item.dense:
        name = "scores" if feature.name == "score" else f"item__{feature.name}"
        odd |= _any_in_row(rows[name], lambda values: ~np.isfinite(values))
    return odd


def _odd_feedback(rows: pa.Table, spec: FeatureSpec) -> Bools:
    odd = np.zeros(rows.num_rows, bool)
    for one in spec.feedback:
        odd |= _any_in_row(
            rows[f"feedback__{one.kind}"], lambda values: ~(np.isfinite(values) & (values >= 0))
        )
    return odd


def _any_in_row(column: pa.ChunkedArray, is_odd: Any) -> Bools:
    """Whether a row's list holds an odd value; missing values are not odd."""
    values = np.asarray(pc.fill_null(pc.list_flatten(column), 0.0), np.float64)
    parents = np.asarray(pc.list_parent_indices(column), np.int64)
    odd = np.zeros(len(column), bool)
    odd[parents[is_odd(values)]] = True
    return odd
