"""Creating and opening the feedback table, on a local folder or an object store."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.transaction import CommitProperties

from contracts.features import FeatureSpec
from contracts.feedback_table import (
    DAY,
    spec_of_table,
    table_properties,
    table_schema,
)
from contracts.reading import ContractError

#: Delta's own settings. docs/feedback_table.md says what each is for.
DELTA_SETTINGS = {
    # Rows added between two versions stay tellable from rows that a compaction wrote again. Only
    # versions written after it was set can be read so, hence from the first.
    "delta.enableChangeDataFeed": "true",
    # How long a vacuum leaves files that a compaction replaced: what an older version is read from.
    "delta.deletedFileRetentionDuration": "interval 7 days",
    "delta.logRetentionDuration": "interval 30 days",
    # Smallest and largest value in each file, for readers that skip; of all columns they would
    # be most of the log.
    "delta.dataSkippingStatsColumns": "request_id,user,time,release,arm",
}

_COLOUR = re.compile(r"\x1b\[[0-9;]*m|\u21b3")


def create_or_open(
    uri: str, spec: FeatureSpec, storage_options: Mapping[str, str] | None = None
) -> DeltaTable:
    """The feedback table at ``uri``, made where there is none. Two may call it at once.

    Args:
        uri: a local folder, or ``s3://bucket/path`` and its like.
        storage_options: what the object store needs beyond the environment (AWS_*).

    Raises:
        ContractError: a table of another feature spec or schema, a folder that holds other
            things, or a place that cannot be reached; says what to do.
    """
    options = dict(storage_options or {})
    _refuse_file(uri)
    try:
        if not DeltaTable.is_deltatable(uri, options):
            _refuse_folder_in_use(uri)
            _create(uri, spec, options)
        table, own = open_table(uri, options)
    except (DeltaError, OSError) as error:
        raise _unreachable(uri, error) from error
    if own.hash() != spec.hash():
        raise ContractError(
            f"{uri}: the table was made with feature spec {own.hash()[:12]}, this one is "
            f"{spec.hash()[:12]}; name another table for the new spec, or take the table's own: "
            f"python streaming/table.py info {uri} --features"
        )
    return table


def open_table(
    uri: str,
    storage_options: Mapping[str, str] | None = None,
    version: int | None = None,
    *,
    any_columns: bool = False,
) -> tuple[DeltaTable, FeatureSpec]:
    """An existing feedback table (its newest version by default) and the spec it was made with.

    Raises:
        ContractError: there is none, it is no feedback table, or, without ``any_columns``, its
            columns are not those of its spec.
    """
    try:
        table = DeltaTable(uri, version=version, storage_options=dict(storage_options or {}))
    except TableNotFoundError as error:
        raise ContractError(
            f"{uri}: no table there; streaming/consume.py makes one (--table {uri})"
        ) from error
    except (DeltaError, OSError) as error:
        raise _unreachable(uri, error) from error
    spec = spec_of_table(table.metadata().configuration, uri)
    if not any_columns:
        check_schema(table, spec, uri)
    return table, spec


def check_schema(table: DeltaTable, spec: FeatureSpec, uri: str) -> None:
    """Raises ContractError where columns or partitions are not those of the contract."""
    found, expected = pa.schema(table.schema().to_arrow()), table_schema(spec)
    # By name: another writer may have given the columns another order.
    wrong = [
        f"{name} is {_type(found, name)}, expected {_type(expected, name)}"
        for name in dict.fromkeys((*expected.names, *found.names))
        if _type(found, name) != _type(expected, name)
    ]
    if wrong:
        raise ContractError(
            f"{uri}: columns differ from the contract: {'; '.join(wrong[:5])}"
            f"{f'; and {len(wrong) - 5} more' if len(wrong) > 5 else ''}. Restore the version "
            "before the change, or write to a new table"
        )
    partitions = table.metadata().partition_columns
    if partitions != [DAY]:
        raise ContractError(f"{uri}: partitioned by {partitions}, expected [{DAY!r}]")


def storage_options_of(assignments: list[str]) -> dict[str, str]:
    """Storage options from ``KEY=VALUE`` texts, as the commands take them."""
    options = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key:
            # The value may be a secret: it is not repeated.
            raise ContractError("--storage-option: write it as KEY=VALUE")
        options[key] = value
    return options


def _create(uri: str, spec: FeatureSpec, options: dict[str, str]) -> None:
    try:
        DeltaTable.create(
            uri,
            table_schema(spec),
            partition_by=[DAY],
            name="gref feedback",
            description="Closed slates with their feedback; see docs/feedback_table.md",
            configuration={**DELTA_SETTINGS, **table_properties(spec)},
            storage_options=options,
            # Properties of ours are not among the keys that Delta knows.
            raise_if_key_not_exists=False,
            # Tried again it would come after another's creation and put its spec in the place
            # of that one's.
            commit_properties=CommitProperties(max_commit_retries=0),
        )
    except DeltaError:
        # Another process may have made it in this moment; version 0 is written by one alone.
        if not DeltaTable.is_deltatable(uri, options):
            raise


def _refuse_file(uri: str) -> None:
    if "://" not in uri and Path(uri).exists() and not Path(uri).is_dir():
        raise ContractError(f"{uri}: is a file; a table is a folder")


def _refuse_folder_in_use(uri: str) -> None:
    """A wrong --table must not fill a folder that is something else."""
    others = [] if "://" in uri else [one.name for one in Path(uri).glob("*")]
    others = sorted(set(others) - {"_delta_log"})
    if others:
        raise ContractError(
            f"{uri}: no table, and holds other things ({others[0]}); name a folder of its own"
        )


def _type(schema: pa.Schema, name: str) -> str:
    if name not in schema.names:
        return "absent"
    field = schema.field(name)
    # Delta knows no schema metadata, and names the elements of a list in its own way.
    kind = f"list of {field.type.value_type}" if pa.types.is_list(field.type) else str(field.type)
    return kind if field.nullable else f"{kind} not null"


def _unreachable(uri: str, error: Exception) -> ContractError:
    cause = " ".join(_COLOUR.sub("", str(error)).split())
    hint = (
        "; give the endpoint and keys by AWS_* in the environment or --storage-option KEY=VALUE"
        if "://" in uri
        else ""
    )
    return ContractError(f"{uri}: the table cannot be opened: {cause[:500]}{hint}")
