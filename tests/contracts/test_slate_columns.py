"""Slates to Arrow and back: nothing is lost, and training sees what serving sees."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.encoding import EncodedBatch, FeatureEncoder
from contracts.features import FeatureSpec
from contracts.reading import ContractError
from contracts.slate_columns import from_table, slate_schema, to_table
from contracts.slates import Candidate, Feedback, RerankRequest, Slate
from tests.contracts import strategies
from tests.contracts.examples import spec
from tests.contracts.slate_rows import to_table_by_rows


@st.composite
def cases(draw: st.DrawFn) -> tuple[FeatureSpec, list[Slate]]:
    one = draw(strategies.specs())
    return one, draw(st.lists(strategies.slates(one), min_size=1, max_size=3))


def through_parquet(slates: list[Slate], one: FeatureSpec) -> list[Slate]:
    file = io.BytesIO()
    pq.write_table(to_table(slates, one), file)
    return from_table(pq.read_table(file), one)


def request(slate: Slate) -> RerankRequest:
    return RerankRequest(
        request_id=slate.request_id,
        user=slate.user,
        candidates=slate.candidates,
        user_features=slate.user_features,
    )


@given(cases())
def test_all_but_features_come_back_equal(case: tuple[FeatureSpec, list[Slate]]) -> None:
    one, slates = case
    for before, after in zip(slates, through_parquet(slates, one), strict=True):
        plain = {
            "user_features": {},
            "candidates": tuple(
                Candidate(item=candidate.item, score=candidate.score)
                for candidate in before.candidates
            ),
        }
        featureless = tuple(
            Candidate(item=candidate.item, score=candidate.score) for candidate in after.candidates
        )
        assert msgspec.structs.replace(before, **plain) == msgspec.structs.replace(
            after, user_features={}, candidates=featureless
        )


@given(cases())
def test_no_skew_between_training_and_serving(case: tuple[FeatureSpec, list[Slate]]) -> None:
    """A stored slate encodes to the very tensors that its request did."""
    one, slates = case
    encoder = FeatureEncoder(one)
    served = encoder.encode([request(slate) for slate in slates])
    stored = encoder.encode([request(slate) for slate in through_parquet(slates, one)])
    for name in EncodedBatch.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(served, name), getattr(stored, name), name)


@given(cases())
def test_storing_twice_changes_nothing(case: tuple[FeatureSpec, list[Slate]]) -> None:
    one, slates = case
    once = to_table(slates, one)
    assert to_table(from_table(once, one), one).equals(once)


@given(cases())
def test_columns_equal_rows(case: tuple[FeatureSpec, list[Slate]]) -> None:
    """Built by columns with offsets, or row by row: the same table, nulls and all."""
    one, slates = case
    table, oracle = to_table(slates, one), to_table_by_rows(slates, one)
    table.validate(full=True)
    assert table.schema.equals(oracle.schema, check_metadata=True)
    assert table.equals(oracle)


WRONG: tuple[Any, ...] = (1.5, "7", 10**400, True, b"x", float("inf"), None, 3, "\ud800", {})


@given(cases(), st.data())
def test_columns_refuse_what_rows_refuse(
    case: tuple[FeatureSpec, list[Slate]], data: st.DataObject
) -> None:
    """Wrong values anywhere: both accept them alike, or both refuse one of them in one wording."""
    one, slates = case
    names = (*strategies.NAMES, "not_in_the_spec")
    first, alone = list(slates), []
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(slates) - 1))
        wrong = {data.draw(st.sampled_from(names)): data.draw(st.sampled_from(WRONG))}
        which = None
        if not data.draw(st.booleans()):
            which = data.draw(st.integers(0, len(slates[at].candidates) - 1))
        for each in (slates, only := list(first)):
            each[at] = with_features(each[at], wrong, which)
        alone.append(refusal_of(only, one))
    refusal = refusal_of(slates, one)
    if refusal is None:
        assert to_table(slates, one).equals(to_table_by_rows(slates, one))
        return
    with pytest.raises(ContractError) as ours:
        to_table(slates, one)
    # Of several, rows name the first slate's and columns the first column's.
    assert any(says(str(ours.value), theirs) for theirs in (refusal, *alone) if theirs)


def with_features(slate: Slate, features: dict[str, Any], candidate: int | None) -> Slate:
    """The slate with these features of its user, or of one of its candidates."""
    if candidate is None:
        return msgspec.structs.replace(slate, user_features=features)
    candidates = list(slate.candidates)
    candidates[candidate] = msgspec.structs.replace(candidates[candidate], features=features)
    return msgspec.structs.replace(slate, candidates=tuple(candidates))


def refusal_of(slates: list[Slate], one: FeatureSpec) -> Exception | None:
    try:
        to_table_by_rows(slates, one)
    except (ContractError, UnicodeEncodeError) as error:
        return error
    return None


def says(ours: str, theirs: Exception) -> bool:
    if isinstance(theirs, ContractError):
        return ours == str(theirs)
    return ours.startswith("slate ") and str(theirs) in ours  # rows did not say in which slate


def slate(**changes: Any) -> Slate:
    fields: dict[str, Any] = {
        "request_id": "q",
        "user": "u",
        "time": 1,
        "candidates": (Candidate(item="a"),),
        "exposed": (0,),
    }
    return Slate(**{**fields, **changes})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("colour", 1.5, "slate q: feature colour: 1.5 is float; allowed: string, whole number"),
        ("price", "7", "slate q: feature price: '7' is str; allowed: number, or missing"),
        ("price", 10**400, "slate q: int too large"),
    ],
)
def test_what_serving_refuses_is_not_stored(name: str, value: Any, message: str) -> None:
    bad = slate(candidates=(Candidate(item="a", features={name: value}),))
    with pytest.raises(ContractError) as error:
        to_table([bad], spec())
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    "changes",
    [
        {"time": 1 << 70},
        {"seed": 1 << 63},
        {"user": "\ud800"},
        {"feedback": (Feedback(position=0, kind="click", value=1.0, time=1 << 63),)},
    ],
)
def test_what_a_column_cannot_hold_names_its_slate(changes: dict[str, Any]) -> None:
    fine = slate()
    with pytest.raises(ContractError, match=r"^slate bad: "):
        to_table([fine, slate(request_id="bad", **changes), fine], spec())


def test_schema_carries_the_spec() -> None:
    schema = slate_schema(spec())
    assert schema.metadata == {b"feature_spec": spec().hash().encode()}
    assert schema.field("item__colour").type == pa.list_(pa.string())
    assert schema.field("item__price").type == pa.list_(pa.float64())
    assert "item__item" not in schema.names
    assert "item__score" not in schema.names
    assert schema.field("feedback__watch").type == pa.list_(pa.float64())


def test_no_slates() -> None:
    table = to_table([], spec())
    assert table.num_rows == 0
    assert table.schema.equals(slate_schema(spec()), check_metadata=True)
    assert from_table(table, spec()) == []
