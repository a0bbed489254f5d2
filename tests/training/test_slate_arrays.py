"""Slates as training reads them: the arrays that serving would compute, and refusals.

Training encodes columns of Parquet, serving encodes requests; any difference between the two is
training-serving skew, which no metric shows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.encoding import FeatureEncoder
from contracts.features import FeatureSpec, FeedbackKind
from contracts.reading import ContractError
from contracts.slate_columns import from_table, to_table
from contracts.slates import Candidate, Feedback, RerankRequest, Slate
from tests.contracts import examples, strategies
from training.data.arrays import SlateArrays, encode_table, load_slates


def request_of(slate: Slate) -> RerankRequest:
    return RerankRequest(
        request_id=slate.request_id,
        user=slate.user,
        candidates=slate.candidates,
        user_features=slate.user_features,
    )


def slate(
    row: int = 0,
    candidates: int = 3,
    exposed: tuple[int, ...] = (1, 0),
    values: dict[str, list[float]] | None = None,
    **changes: Any,
) -> Slate:
    feedback = tuple(
        Feedback(position=position, kind=kind, value=value, time=9)
        for kind, row_values in (values or {}).items()
        for position, value in enumerate(row_values)
        if value is not None
    )
    made = {
        "request_id": f"r{row}",
        "user": f"u{row}",
        "time": 1000 + row,
        "candidates": tuple(
            Candidate(item=f"i{index}", score=0.5 * index, features={"price": 3.0, "colour": "red"})
            for index in range(candidates)
        ),
        "exposed": exposed,
        "user_features": {"age": 31.0},
        "feedback": feedback,
    }
    return Slate(**{**made, **changes})


def write(folder: Path, slates: list[Slate], spec: FeatureSpec, name: str = "part-0") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(to_table(slates, spec), folder / f"{name}.parquet")


def replaced(table: pa.Table, name: str, rows: list[Any]) -> pa.Table:
    """The table with other rows in a column."""
    field = table.schema.field(name)
    index = table.schema.get_field_index(name)
    return table.set_column(index, field, [pa.array(rows, field.type)])


@st.composite
def logs(draw: st.DrawFn) -> tuple[FeatureSpec, list[Slate]]:
    spec = draw(strategies.specs())
    return spec, draw(st.lists(strategies.slates(spec), min_size=1, max_size=5))


@settings(max_examples=150)
@given(logs())
def test_training_and_serving_compute_the_same_arrays(
    log: tuple[FeatureSpec, list[Slate]],
) -> None:
    """Bit for bit: missing values, values out of vocabulary, numbers as text, all of Unicode."""
    spec, slates = log
    table = to_table(slates, spec)
    trained = encode_table(table, spec)
    encoder = FeatureEncoder(spec)
    width = trained.item_cat.shape[1]
    # Both what the table gives back and what the ranking server had in its hands at first.
    for source in (from_table(table, spec), slates):
        served = encoder.encode([request_of(one) for one in source], pad_to=width)
        for name in ("item_cat", "item_dense", "user_cat", "user_dense", "count"):
            expected, found = getattr(served, name), getattr(trained, name)
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected, err_msg=name)
    for row, one in enumerate(slates):
        shown = len(one.exposed)
        assert trained.exposed[row].tolist()[:shown] == list(one.exposed)
        assert (trained.exposed[row, shown:] == -1).all()
        assert trained.items[row, : len(one.candidates)].tolist() == [
            candidate.item for candidate in one.candidates
        ]
        given = np.zeros((trained.exposed.shape[1], 2), np.float32)
        for feedback in one.feedback:
            given[feedback.position, ["click", "watch"].index(feedback.kind)] = feedback.value
        np.testing.assert_array_equal(trained.feedback[row], given)
        assert trained.request_id[row] == one.request_id
        assert trained.user[row] == one.user
        assert trained.time[row] == one.time


@given(st.lists(st.integers(1, 8), min_size=1, max_size=6), st.data())
def test_a_batch_holds_its_rows_trimmed(counts: list[int], data: st.DataObject) -> None:
    slates = [
        slate(row, m, tuple(range(m))[: data.draw(st.integers(0, m))])
        for row, m in enumerate(counts)
    ]
    arrays = encode_table(to_table(slates, examples.spec()), examples.spec())
    rows = np.array(data.draw(st.lists(st.integers(0, len(counts) - 1), min_size=1, max_size=4)))
    batch = arrays.batch(rows)
    assert batch.row.tolist() == rows.tolist()
    assert batch.candidates == max(counts[row] for row in rows)
    assert batch.exposed.shape[1] == max(1, *(len(slates[row].exposed) for row in rows))
    for place, row in enumerate(rows):
        assert int(batch.count[place]) == counts[row]
        assert [i for i in batch.exposed[place].tolist() if i >= 0] == list(slates[row].exposed)
    whole = list(arrays.batches(2))
    assert torch.cat([one.row for one in whole]).tolist() == list(range(len(counts)))
    part = arrays.take(rows)
    assert part.request_id.tolist() == [f"r{row}" for row in rows]


def test_utility_is_binary_or_grows_with_the_feedback() -> None:
    values = {"click": [1.0, 0.0], "watch": [8.0, 2.0]}
    spec = examples.spec()
    binary = encode_table(to_table([slate(values=values)], spec), spec)
    assert binary.utility.tolist() == [[1.0, 0.0]]
    continuous = examples.spec(utility="watch")
    rows = [slate(values=values), slate(1, values={"watch": [4.0, None]})]
    arrays = encode_table(to_table(rows, continuous), continuous)
    # x / (x + median of the positive values), here 4.
    expected = [[8 / 12, 2 / 6], [0.5, 0.0]]
    np.testing.assert_allclose(arrays.utility, expected, rtol=1e-6)
    batch = arrays.batch(np.array([1, 0]))
    np.testing.assert_allclose(batch.utility, expected[::-1], rtol=1e-6)
    assert batch.feedback.shape == (2, 2, 2)


def test_a_continuous_utility_has_one_scale_for_all_parts(tmp_path: Path) -> None:
    """A minute watched is worth the same in training, held-out slates and any part."""
    spec = examples.spec(utility="watch")
    write(
        tmp_path / "train", [slate(row, values={"watch": [60.0, 20.0]}) for row in range(3)], spec
    )
    write(tmp_path / "valid", [slate(9, values={"watch": [60.0, 500.0]})], spec)
    train = load_slates(tmp_path / "train", spec)
    valid = load_slates(tmp_path / "valid", spec, like=train)
    assert valid.utility[0, 0] == train.utility[0, 0]
    assert (train.take(np.array([1])).utility == train.utility[1:2]).all()
    assert valid.take(np.array([0])).utility[0, 0] == train.utility[0, 0]


def test_a_split_without_feedback_has_utility_zero() -> None:
    for utility in ("click", "watch"):
        spec = examples.spec(utility=utility)
        arrays = encode_table(to_table([slate()], spec), spec)
        assert arrays.utility.tolist() == [[0.0, 0.0]]


def test_a_folder_is_read_in_the_order_of_its_files(tmp_path: Path) -> None:
    spec = examples.spec()
    write(tmp_path, [slate(2), slate(3, 5, (4,))], spec, "part-00001")
    write(tmp_path, [slate(0), slate(1, 1, (0,))], spec, "part-00000")
    arrays = load_slates(tmp_path, spec)
    assert arrays.request_id.tolist() == ["r0", "r1", "r2", "r3"]
    assert arrays.count.tolist() == [3, 1, 3, 5]
    assert load_slates(tmp_path, spec, limit=3).request_id.tolist() == ["r0", "r1", "r2"]
    assert len(load_slates(tmp_path, spec, limit=99)) == 4


def test_lists_that_are_null_as_a_whole_are_missing_values() -> None:
    """Any writer of the schema may leave a nullable list out; from_table reads that as missing."""
    spec = examples.spec()
    table = to_table([slate(), slate(1, values={"click": [1.0, 0.0]})], spec)
    for name in ("scores", "feedback__click", "feedback__watch"):
        table = replaced(table, name, [None, table[name].to_pylist()[1]])
    arrays = encode_table(table, spec)
    served = FeatureEncoder(spec).encode(
        [request_of(one) for one in from_table(table, spec)], pad_to=3
    )
    np.testing.assert_array_equal(arrays.item_dense, served.item_dense)
    assert arrays.feedback[0].sum() == 0
    assert arrays.utility.tolist() == [[0.0, 0.0], [1.0, 0.0]]


@pytest.mark.parametrize(
    ("column", "rows", "cause"),
    [
        # The same total as the candidates': a shift by one row that sums would not see.
        ("scores", [[0.5, 1.0], [0.0, 0.5, 1.0, 2.0]], "scores.*3 candidates"),
        ("item__colour", [["red"], ["red"] * 5], "item__colour.*3 candidates"),
        ("feedback__click", [[1.0], [1.0, 0.0, 1.0]], "feedback__click.*2 shown"),
        ("exposed", [[0, 3], [1, 0]], "r0.*exposed.*0 to 2"),
        ("exposed", [[1, 0], [-1, 0]], "r1.*exposed.*0 to 2"),
        ("exposed", [[1, 0], [2, 2]], "r1.*exposed.*twice"),
        ("feedback__click", [[1.0, float("nan")], [None, 0.0]], "feedback__click.*nan"),
        ("feedback__watch", [[1.0, 2.0], [-3.0, 0.0]], "feedback__watch.*-3"),
    ],
)
def test_a_damaged_table_is_refused(column: str, rows: list[Any], cause: str) -> None:
    spec = examples.spec()
    table = to_table([slate(), slate(1)], spec)
    with pytest.raises(ContractError, match=cause):
        encode_table(replaced(table, column, rows), spec)


def test_what_the_model_cannot_hold_is_refused() -> None:
    spec = examples.spec()  # at most 8 candidates
    table = to_table([slate(), slate(7, 9)], spec)
    with pytest.raises(ContractError, match="r7: 9 candidates; allowed: 1 to 8"):
        encode_table(table, spec)
    with pytest.raises(ContractError, match="r0: 0 candidates"):
        encode_table(to_table([slate(0, 0, ())], spec), spec)
    wide = examples.spec(candidate_buckets=[128])
    table = to_table([slate(5, 70, tuple(range(70)))], wide)
    with pytest.raises(ContractError, match="r5: 70 items shown; allowed: up to 64"):
        encode_table(table, wide)


def test_slates_of_another_spec_are_refused(tmp_path: Path) -> None:
    """Both hashes and what to do, where the tensors would have fitted all the same."""
    spec = examples.spec()
    write(tmp_path, [slate()], spec)
    kinds = (*spec.feedback, FeedbackKind(kind="share", type="binary"))
    other = msgspec.structs.replace(spec, feedback=kinds)
    with pytest.raises(ContractError, match=rf"{spec.hash()[:12]}.*{other.hash()[:12]}.*prepare"):
        load_slates(tmp_path, other)
    table = pq.read_table(tmp_path / "part-0.parquet").replace_schema_metadata({})
    pq.write_table(table, tmp_path / "part-0.parquet")
    with pytest.raises(ContractError, match="none"):
        load_slates(tmp_path, spec)


def test_files_that_are_not_there_or_cut_short_are_refused(tmp_path: Path) -> None:
    spec = examples.spec()
    with pytest.raises(ContractError, match=r"no Parquet file.*prepare\.py"):
        load_slates(tmp_path, spec)
    write(tmp_path, [], spec)
    with pytest.raises(ContractError, match="no slates"):
        load_slates(tmp_path, spec)
    write(tmp_path, [slate(row) for row in range(50)], spec)
    file = tmp_path / "part-0.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ContractError, match=r"part-0\.parquet: cannot be read"):
        load_slates(tmp_path, spec)
    table = to_table([slate()], spec).drop_columns(["exposed"])
    pq.write_table(table, file)
    with pytest.raises(ContractError, match=r"part-0\.parquet.*exposed"):
        load_slates(tmp_path, spec)


@pytest.mark.parametrize(
    ("column", "values", "kind"),
    [
        ("candidates", [["a", None, "c"]], pa.list_(pa.string())),
        ("exposed", [[1, None]], pa.list_(pa.int32())),
        ("exposed", [None], pa.list_(pa.int32())),
        ("user", [None], pa.string()),
        ("time", [None], pa.int64()),
        ("item__price", [["a", "b", "c"]], pa.list_(pa.string())),
        ("candidates", [3], pa.int64()),
    ],
)
def test_columns_of_another_type_or_with_nulls_are_refused(
    tmp_path: Path, column: str, values: list[object], kind: pa.DataType
) -> None:
    """A null candidate or user would train as a missing value, in silence."""
    spec = examples.spec()
    table = to_table([slate()], spec)
    index = table.column_names.index(column)
    table = table.set_column(index, pa.field(column, kind), pa.array(values, kind))
    pq.write_table(table, tmp_path / "part-0.parquet")
    with pytest.raises(ContractError, match=rf"part-0\.parquet: column {column} .*allowed"):
        load_slates(tmp_path, spec)


def test_lists_that_promise_no_nulls_are_read(tmp_path: Path) -> None:
    """As other writers of the schema store them."""
    spec = examples.spec()
    table = to_table([slate()], spec)
    index = table.column_names.index("candidates")
    kind = pa.list_(pa.field("element", pa.string(), nullable=False))
    values = pa.array(table["candidates"].to_pylist(), kind)
    pq.write_table(table.set_column(index, "candidates", values), tmp_path / "part-0.parquet")
    assert load_slates(tmp_path, spec).items.tolist() == [["i0", "i1", "i2"]]


def test_a_refused_feature_names_the_feature() -> None:
    spec = examples.spec()
    table = to_table([slate()], spec)
    table = replaced(table, "item__price", [[1.0, float("nan"), 2.0]])
    with pytest.raises(ValueError, match="price: nan"):
        encode_table(table, spec)


def test_arrays_are_what_the_annotations_say() -> None:
    arrays = encode_table(to_table([slate()], examples.spec()), examples.spec())
    assert isinstance(arrays, SlateArrays)
    kinds = {
        "item_cat": np.int32,
        "item_dense": np.float32,
        "count": np.int32,
        "exposed": np.int64,
        "feedback": np.float32,
        "utility": np.float32,
    }
    assert {name: getattr(arrays, name).dtype.type for name in kinds} == kinds
