"""Is a feedback table what training believes it to be? Read batch by batch, in flat memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable

from contracts.features import FeatureSpec
from contracts.feedback_table import DAY
from contracts.reading import Strict
from streaming.feedback_table.duplicates import duplicates
from streaming.feedback_table.rates import Rate, RateCounter
from streaming.feedback_table.rules import Window, check_batch

#: Request ids that a violation names.
EXAMPLES = 5
_BATCH_ROWS = 4096

_ERASE = (
    "stop what writes them (docs/feedback_table.md, Mending), then erase the rows: "
    "deltalake.DeltaTable(TABLE).delete(\"request_id IN ('...')\")"
)

#: Of each rule: what is wrong with the rows, and what mends it.
RULES: dict[str, tuple[str, str]] = {
    "duplicate_request": (
        "the request_id is in the table already",
        "see that one consumer group alone writes here (python streaming/table.py info TABLE), "
        "then keep one row of each (docs/feedback_table.md, Mending)",
    ),
    "missing": ("no request_id, user, time, candidates or exposed items", _ERASE),
    "candidate_twice": ("an item is twice among the candidates", _ERASE),
    "exposed_twice": ("exposed names a candidate twice", _ERASE),
    "exposed_out_of_range": ("exposed names a candidate that is not there", _ERASE),
    "candidates_unaligned": ("scores or item features are not one for each candidate", _ERASE),
    "log_prob": ("log_prob is not a log-probability for each exposed item", _ERASE),
    "not_finite": (
        "a feature or score is infinite or not a number; serving would refuse it",
        "mend the ranking server that sends it (docs/features.md); " + _ERASE,
    ),
    "exploration": ("the temperature is negative or not a number", _ERASE),
    "day": ("day is not the UTC day of time", _ERASE),
    "feedback_unaligned": ("orphans: feedback is not one place for each exposed item", _ERASE),
    "feedback_value": (
        "a feedback value is infinite, not a number, negative, or not 0 or 1 where it is binary",
        "mend the sender of the feedback or the kind's type in the feature spec; " + _ERASE,
    ),
    "feedback_without_time": ("a feedback value has no time, or a time no value", _ERASE),
    "feedback_outside_window": (
        "feedback lies before its exposure or beyond the join window",
        "compare the clocks of the ranking server and of the sender of feedback; give the "
        "consumer's own window (--join-window) and the skew you accept (--clock-skew)",
    ),
}


class Violation(Strict, kw_only=True, frozen=True):
    """Rows that break a rule, some of their request ids, and what mends it."""

    rule: str
    meaning: str
    rows: int
    request_ids: tuple[str, ...]
    mend: str


class Validation(Strict, kw_only=True, frozen=True):
    """``python streaming/table.py validate``."""

    uri: str
    version: int
    rows: int
    violations: tuple[Violation, ...]
    by_day: tuple[Rate, ...]
    by_position: tuple[Rate, ...]


def validate(
    table: DeltaTable,
    spec: FeatureSpec,
    window: Window,
    *,
    uri: str,
    from_day: str | None = None,
    advance: Callable[[int], None] = lambda rows: None,
) -> Validation:
    """Check every row of a table's version against the rules.

    Args:
        window: when feedback counts.
        uri: the table as its user calls it.
        from_day: rows of this day (YYYY-MM-DD) and later ones alone.
        advance: told of each batch's rows as they are done.
    """
    rates, counts, rows = RateCounter(spec), dict.fromkeys(RULES, 0), 0
    examples: dict[str, list[str]] = {rule: [] for rule in RULES}
    for batch in _batches(table, from_day):
        broken: dict[str, np.ndarray] = {}
        for rule, wrong in check_batch(batch, spec, window):
            broken[rule] = broken.get(rule, False) | wrong
        for rule, wrong in broken.items():
            counts[rule] += int(wrong.sum())
            for at in np.flatnonzero(wrong)[: EXAMPLES - len(examples[rule])]:
                examples[rule].append(str(batch.column("request_id")[int(at)].as_py()))
        rates.add(batch)
        rows += batch.num_rows
        advance(batch.num_rows)
    surplus, named = duplicates(lambda: _batches(table, from_day, ["request_id"]), rows, EXAMPLES)
    counts["duplicate_request"], examples["duplicate_request"] = surplus, list(named)
    return Validation(
        uri=uri,
        version=table.version(),
        rows=rows,
        violations=tuple(
            Violation(
                rule=rule,
                meaning=meaning,
                rows=counts[rule],
                request_ids=tuple(examples[rule]),
                mend=mend.replace("TABLE", uri),
            )
            for rule, (meaning, mend) in RULES.items()
            if counts[rule]
        ),
        by_day=rates.by_day(),
        by_position=rates.by_position(),
    )


def _batches(
    table: DeltaTable, from_day: str | None, columns: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows in batches, a few of them ahead: by default Arrow reads gigabytes ahead."""
    # A table without a file has no dataset.
    if not table.file_uris():
        return iter(())
    dataset = table.to_pyarrow_dataset()
    batches: Iterator[pa.RecordBatch] = dataset.to_batches(
        columns=columns,
        filter=None if from_day is None else ds.field(DAY) >= from_day,
        batch_size=_BATCH_ROWS,
        batch_readahead=2,
        fragment_readahead=1,
        use_threads=False,
        # Else a whole file is held in memory before its first row is seen.
        fragment_scan_options=ds.ParquetFragmentScanOptions(
            use_buffered_stream=True, buffer_size=1 << 16, pre_buffer=False
        ),
    )
    return (batch for batch in batches if batch.num_rows)
