"""A feedback table is made once, and nothing else is taken for one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.transaction import CommitProperties

from contracts.features import FeatureSpec
from contracts.feedback_table import (
    SPEC_PROPERTY,
    spec_of_table,
    table_properties,
    table_schema,
)
from contracts.reading import ContractError
from streaming.feedback_table.opening import (
    create_or_open,
    open_table,
    storage_options_of,
)
from tests.contracts import examples
from tests.streaming.feedback_tables import SPEC, append, slate


def test_made_and_opened_again(tmp_path: Path) -> None:
    uri = str(tmp_path / "deep" / "feedback")
    made = create_or_open(uri, SPEC)
    append(uri, [slate(1)])
    table, spec = open_table(uri)
    assert spec == SPEC
    assert (made.version(), table.version()) == (0, 1)
    assert table.metadata().partition_columns == ["day"]
    assert create_or_open(uri, SPEC).version() == 1
    assert pa.schema(table.schema().to_arrow()).equals(table_schema(SPEC), check_metadata=False)
    assert open_table(uri, version=0)[0].version() == 0


def test_another_spec_is_refused_with_both_hashes(tmp_path: Path) -> None:
    uri = str(tmp_path / "feedback")
    create_or_open(uri, SPEC)
    other = examples.spec(list_size=2)
    with pytest.raises(ContractError) as error:
        create_or_open(uri, other)
    for part in (SPEC.hash()[:12], other.hash()[:12], uri, "--features", "another table"):
        assert part in str(error.value)


def test_other_columns_are_refused_and_named(tmp_path: Path) -> None:
    schema = table_schema(SPEC).append(pa.field("extra", pa.int64()))
    schema = schema.set(schema.get_field_index("seed"), pa.field("seed", pa.string()))
    uri = str(tmp_path / "feedback")
    DeltaTable.create(
        uri,
        schema.remove(schema.get_field_index("scores")),
        partition_by=["day"],
        configuration=table_properties(SPEC),
        raise_if_key_not_exists=False,
    )
    with pytest.raises(ContractError) as error:
        open_table(uri)
    for part in (
        "scores is absent, expected list of double",
        "seed is string, expected int64",
        "extra is int64, expected absent",
    ):
        assert part in str(error.value)


def test_other_partitions_are_refused(tmp_path: Path) -> None:
    uri = str(tmp_path / "feedback")
    DeltaTable.create(
        uri,
        table_schema(SPEC),
        configuration=table_properties(SPEC),
        raise_if_key_not_exists=False,
    )
    with pytest.raises(ContractError, match="partitioned by"):
        create_or_open(uri, SPEC)


def test_what_is_no_feedback_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no table there"):
        open_table(str(tmp_path / "nothing"))
    other = str(tmp_path / "other")
    write_deltalake(other, pa.table({"x": [1]}))
    with pytest.raises(ContractError, match=SPEC_PROPERTY):
        open_table(other)
    with pytest.raises(ContractError, match=SPEC_PROPERTY):
        create_or_open(other, SPEC)
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "letter.txt").write_text("dear")
    with pytest.raises(ContractError, match=r"letter\.txt"):
        create_or_open(str(folder), SPEC)
    with pytest.raises(ContractError, match="is a file"):
        create_or_open(str(folder / "letter.txt"), SPEC)
    assert [one.name for one in folder.iterdir()] == ["letter.txt"]


def test_a_spec_that_was_altered_is_refused(tmp_path: Path) -> None:
    uri = str(tmp_path / "feedback")
    table = create_or_open(uri, SPEC)
    table.alter.set_table_properties(
        {SPEC_PROPERTY: table_properties(examples.spec(list_size=1))[SPEC_PROPERTY]},
        raise_if_not_exists=False,
        commit_properties=CommitProperties(),
    )
    with pytest.raises(ContractError, match="has hash"):
        open_table(uri)


def test_a_damaged_log_is_bad_input(tmp_path: Path) -> None:
    uri = str(tmp_path / "feedback")
    create_or_open(uri, SPEC)
    (tmp_path / "feedback" / "_delta_log" / f"{0:020d}.json").write_text("{")
    with pytest.raises(ContractError, match="cannot be opened"):
        open_table(uri)


@pytest.mark.parametrize("specs", [[SPEC] * 4, [SPEC, examples.spec(list_size=2)] * 2])
def test_many_may_make_it_at_once(tmp_path: Path, specs: list[FeatureSpec]) -> None:
    """One creates; who comes with the same spec opens that one, with another is refused."""
    for number in range(10):
        uri = str(tmp_path / f"feedback{number}")
        gate = threading.Barrier(len(specs))

        def make(spec: FeatureSpec, uri: str = uri, gate: threading.Barrier = gate) -> str:
            gate.wait(30)
            try:
                return spec_of_table(create_or_open(uri, spec).metadata().configuration, "").hash()
            except ContractError as error:
                return "refused" if "was made with feature spec" in str(error) else str(error)

        with ThreadPoolExecutor(len(specs)) as pool:
            got = list(pool.map(make, specs))
        table, own = open_table(uri)
        assert table.version() == 0
        assert got == [own.hash() if one == own else "refused" for one in specs]


def test_storage_options() -> None:
    assert storage_options_of(["A=1", "B=x=y"]) == {"A": "1", "B": "x=y"}
    with pytest.raises(ContractError) as error:
        storage_options_of(["secret"])
    assert "secret" not in str(error.value)
