"""Impossible feature specs are refused, each with what is allowed."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.features import Categorical, FeatureSpec
from contracts.reading import ContractError
from tests.contracts.examples import spec


def categorical(**changes: Any) -> dict[str, Any]:
    feature = {"name": "kind", "width": 4, "buckets": 10, **changes}
    return {"item": {"categorical": [{k: v for k, v in feature.items() if v is not None}]}}


def dense(**changes: Any) -> dict[str, Any]:
    return {"item": {"dense": [{"name": "price", **changes}]}}


REFUSED = [
    (categorical(buckets=None), "give exactly one of buckets and vocabulary"),
    (categorical(vocabulary=["a"]), "give exactly one of buckets and vocabulary"),
    (categorical(buckets=0), "buckets must be from 1 to 100000000"),
    (categorical(buckets=10**8 + 1), "buckets must be from 1 to 100000000"),
    (categorical(buckets=None, vocabulary=["a", "b", "a"]), "vocabulary holds a value twice"),
    (categorical(buckets=None, vocabulary=["\ud800"]), "vocabulary holds invalid Unicode"),
    (categorical(width=0), "width must be from 1 to 1024"),
    (categorical(width=1025), "width must be from 1 to 1024"),
    (categorical(name="Kind"), "name 'Kind'; allowed: lower-case letters"),
    (categorical(name="kind\n"), "allowed: lower-case letters"),
    (categorical(name=""), "name ''; allowed: lower-case letters"),
    (categorical(name="score"), "item feature score is the previous stage's number"),
    (dense(name="item"), "item feature item is an identity; allowed: categorical"),
    ({"user": {"dense": [{"name": "user"}]}}, "user feature user is an identity"),
    (dense(std=-1.0), "std must be finite and above 0"),
    (dense(std=float("nan")), "std must be finite and above 0"),
    (dense(mean=float("inf")), "mean must be finite"),
    (
        {
            "user": {
                "categorical": [{"name": "a", "width": 1, "buckets": 1}],
                "dense": [{"name": "a"}],
            }
        },
        "feature named twice: a",
    ),
    ({"list_size": 65}, "list_size is 65; allowed: 1 to 64"),
    ({"candidate_buckets": []}, "candidate_buckets must be positive and ascending"),
    ({"candidate_buckets": [8, 4]}, "candidate_buckets must be positive and ascending"),
    ({"candidate_buckets": [4, 4]}, "candidate_buckets must be positive and ascending"),
    ({"candidate_buckets": [0, 4]}, "candidate_buckets must be positive and ascending"),
    ({"candidate_buckets": [513]}, "candidate_buckets may not exceed 512"),
    ({"utility": "like"}, "utility is 'like'; allowed: click, watch"),
    ({"feedback": [{"kind": "a", "type": "binary"}] * 2}, "a feedback kind is named twice"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_impossible_specs(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=r"^features\.yaml: field ") as error:
        spec(**change)
    assert message in str(error.value)


def test_rows_hold_every_value_and_the_reserved_two() -> None:
    assert Categorical(name="a", width=1, buckets=10).rows == 12
    assert Categorical(name="a", width=1, vocabulary=("x", "y")).rows == 4
    assert Categorical(name="a", width=1, vocabulary=()).rows == 2


@pytest.mark.parametrize(("candidates", "bucket"), [(1, 4), (4, 4), (5, 8), (8, 8)])
def test_bucket(candidates: int, bucket: int) -> None:
    assert spec().bucket(candidates) == bucket


def test_no_bucket_beyond_the_last() -> None:
    with pytest.raises(ValueError, match="9 candidates; allowed: 1 to 8"):
        spec().bucket(9)


def test_utility_kind() -> None:
    one: FeatureSpec = spec(utility="watch")
    assert one.utility_kind.type == "continuous"
