"""What the encoder makes of each kind of value, and what it refuses and how it says so."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
import pytest

from contracts.encoding import FeatureEncoder, FeatureError
from contracts.slates import Candidate, RerankRequest, Scalar
from tests.contracts.examples import request, spec

ENCODER = FeatureEncoder(spec())
COLOUR = ENCODER.spec.item.categorical[1]


def colours(*values: Scalar) -> list[int]:
    batch = ENCODER.encode([request(*values, feature="colour")])
    return batch.item_cat[0, : len(values), 1].tolist()


def prices(*values: Scalar) -> list[list[float]]:
    batch = ENCODER.encode([request(*values)])
    return batch.item_dense[0, : len(values), :2].tolist()


def test_shapes_and_types() -> None:
    batch = ENCODER.encode([request(1.0, 2.0), request(1.0)])
    assert (batch.item_cat.shape, batch.item_cat.dtype) == ((2, 4, 2), np.int32)
    assert (batch.item_dense.shape, batch.item_dense.dtype) == ((2, 4, 4), np.float32)
    assert (batch.user_cat.shape, batch.user_cat.dtype) == ((2, 1), np.int32)
    assert (batch.user_dense.shape, batch.user_dense.dtype) == ((2, 2), np.float32)
    assert (batch.count.tolist(), batch.count.dtype) == ([2, 1], np.int32)


def test_missing_unknown_and_known_categories() -> None:
    assert colours(None, "blue", "red", "true") == [0, 1, 2, 3]


def test_numbers_and_booleans_are_their_text() -> None:
    """True == 1 in Python; the two must not share a row, in whichever order they come."""
    assert colours(1, True, "1", "true") == [4, 3, 4, 3]
    assert colours(True, 1) == [3, 4]


def test_absent_is_missing() -> None:
    batch = ENCODER.encode([request(None), request(None, feature="other")])
    assert batch.item_dense[:, 0, :2].tolist() == [[0, 1], [0, 1]]
    assert batch.item_cat[:, 0, 1].tolist() == [0, 0]


def test_dense_values() -> None:
    assert prices(None, 0, math.e - 1, True) == [
        [0, 1],
        [0, 0],
        [1, 0],
        [pytest.approx(math.log(2)), 0],
    ]


def test_dense_values_are_clipped() -> None:
    assert prices(10**300, 1e308) == [[10, 0], [10, 0]]
    batch = ENCODER.encode([request(1.0, user_features={"age": -(10**9)})])
    assert batch.user_dense.tolist() == [[-10, 0]]


def test_the_score_is_the_candidates_own() -> None:
    candidates = (Candidate(item="a", score=0.25), Candidate(item="b", features={"score": 3.0}))
    batch = ENCODER.encode([request(candidates=candidates)])
    assert batch.item_dense[0, :2, 2:].tolist() == [[0.25, 0], [0, 1]]


def test_groups_without_features_have_one_constant_column() -> None:
    encoder = FeatureEncoder(spec(user={}, item={}))
    batch = encoder.encode([request(1.0)])
    assert batch.item_cat.tolist() == [[[0]] * 4]
    assert batch.item_dense.tolist() == [[[0, 0]] * 4]
    assert batch.user_cat.tolist() == [[0]]
    assert batch.user_dense.tolist() == [[0, 0]]


@pytest.mark.parametrize(("size", "width"), [(1, 4), (4, 4), (5, 8), (8, 8)])
def test_padding_is_the_smallest_bucket(size: int, width: int) -> None:
    assert ENCODER.encode([request(*[1.0] * size)]).item_cat.shape[1] == width


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        (float("nan"), "nan; allowed: finite or missing"),
        (float("-inf"), "-inf; allowed: finite or missing"),
        (-0.5, "-0.5; allowed under log1p: >= 0"),
        ("7", "'7' is str; allowed: number or missing"),
        (10**400, "number too large"),
        ([1], "[1] is list; allowed: number or missing"),
    ],
)
def test_refused_numbers_are_named(value: Scalar, cause: str) -> None:
    good = request(1.0, None, request_id="fine")
    bad = request(1.0, value, request_id="bad")
    with pytest.raises(FeatureError) as error:
        ENCODER.encode([good, bad])
    place = "request bad, candidate 1 (item i1): item feature price: "
    assert str(error.value) == place + cause


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        (1.5, "1.5 is float; allowed: string, whole number, boolean or missing"),
        (b"red", "b'red' is bytes; allowed: string, whole number, boolean or missing"),
        pytest.param("\ud800", "not valid text: ", id="surrogate"),
        pytest.param(10**5000, "not valid text: ", id="5001 digits"),
    ],
)
@pytest.mark.parametrize("feature", ["colour", "hashed"])
def test_refused_categories_are_named(value: Scalar, cause: str, feature: str) -> None:
    """The same in a vocabulary and in buckets."""
    item = {
        "categorical": [
            {"name": "colour", "width": 4, "vocabulary": ["red"]},
            {"name": "hashed", "width": 4, "buckets": 10},
        ]
    }
    with pytest.raises(FeatureError) as error:
        FeatureEncoder(spec(item=item)).encode([request(value, feature=feature)])
    place = f"request q, candidate 0 (item i0): item feature {feature}: "
    assert str(error.value).startswith(place + cause)


@pytest.mark.parametrize("features", [None, "price", [1.0]])
def test_features_that_are_no_mapping(features: Any) -> None:
    """Structs made in code are not checked by their types as those read from files are."""
    bad = Candidate(item="b", features=features)
    with pytest.raises(FeatureError, match=r"^request q, candidate 1 \(item b\): features are "):
        ENCODER.encode([request(candidates=(Candidate(item="a"), bad))])


def test_a_refused_user_value_names_the_request() -> None:
    with pytest.raises(FeatureError, match=r"^request q: user feature age: nan; allowed: "):
        ENCODER.encode([request(1.0, user_features={"age": float("nan")})])


@pytest.mark.parametrize("size", [0, 9])
def test_number_of_candidates(size: int) -> None:
    with pytest.raises(FeatureError, match=f"^request q: {size} candidates; allowed: 1 to 8$"):
        ENCODER.encode([request(*[1.0] * size)])
    with pytest.raises(FeatureError, match="allowed: 1 to 8"):
        ENCODER.encode([request(*[1.0] * 9)], pad_to=64)
    with pytest.raises(FeatureError, match="allowed: 1 to 2"):
        ENCODER.encode([request(*[1.0] * 3)], pad_to=2)


def test_the_largest_request_and_one_more() -> None:
    encoder = FeatureEncoder(spec(candidate_buckets=[16, 512]))
    assert encoder.encode([request(*[1.0] * 512)]).item_cat.shape == (1, 512, 2)
    with pytest.raises(FeatureError, match="513 candidates; allowed: 1 to 512"):
        encoder.encode([request(*[1.0] * 513)])


def test_no_requests() -> None:
    with pytest.raises(FeatureError, match="no request to encode"):
        ENCODER.encode([])


def test_a_refusal_leaves_the_encoder_as_it_was() -> None:
    before = ENCODER.encode([request(1.0)])
    with pytest.raises(FeatureError):
        ENCODER.encode([request(float("nan"))])
    after = ENCODER.encode([request(1.0)])
    np.testing.assert_array_equal(before.item_cat, after.item_cat)


def test_threads_share_an_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a cache that overflows all the time, so that threads clear it under one another."""
    monkeypatch.setattr("contracts.encoding._CACHE_LIMIT", 3)
    encoder = FeatureEncoder(spec(candidate_buckets=[64]))
    work: list[RerankRequest] = [
        request(candidates=tuple(Candidate(item=f"{t}-{i}") for i in range(64))) for t in range(4)
    ]
    expected = [ENCODER_64.encode([one]).item_cat for one in work]
    found: list[list[np.ndarray]] = [[] for _ in work]

    def run(thread: int) -> None:
        for _ in range(50):
            found[thread].append(encoder.encode([work[thread]]).item_cat)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for thread, arrays in enumerate(found):
        assert len(arrays) == 50
        for array in arrays:
            np.testing.assert_array_equal(array, expected[thread])


ENCODER_64 = FeatureEncoder(spec(candidate_buckets=[64]))
