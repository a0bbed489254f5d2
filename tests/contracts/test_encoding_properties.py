"""The encoder against the oracle, and what must hold for every batch."""

from __future__ import annotations

import hashlib
import warnings

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from contracts import encoding
from contracts.encoding import EncodedBatch, FeatureEncoder
from contracts.features import FeatureSpec
from contracts.slates import RerankRequest
from tests.contracts import oracle, strategies


@st.composite
def batches(draw: st.DrawFn) -> tuple[FeatureSpec, list[RerankRequest]]:
    spec = draw(strategies.specs())
    return spec, draw(st.lists(strategies.requests(spec), min_size=1, max_size=4))


def arrays(batch: EncodedBatch) -> dict[str, np.ndarray]:
    return {name: getattr(batch, name) for name in EncodedBatch.__dataclass_fields__}


def test_oracle_hash_is_xxhash64() -> None:
    """The oracle's own hash against the reference implementation, at every length it branches."""
    for size in range(100):
        data = hashlib.sha512(bytes([size])).digest() * 2
        assert oracle.xxhash64(data[:size]) == xxhash.xxh64_intdigest(data[:size])


@given(batches())
def test_equals_the_oracle(case: tuple[FeatureSpec, list[RerankRequest]]) -> None:
    spec, requests = case
    width = spec.bucket(max(len(request.candidates) for request in requests))
    expected = oracle.encode(spec, requests, width)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch = FeatureEncoder(spec).encode(requests)
    for name, found in arrays(batch).items():
        if found.dtype == np.int32:
            np.testing.assert_array_equal(found, np.array(expected[name]), name)
        else:
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, np.array(expected[name]), 2e-6, 1e-6, err_msg=name)


@given(batches(), st.integers(0, 9))
def test_a_batch_is_its_requests_padded(
    case: tuple[FeatureSpec, list[RerankRequest]], extra: int
) -> None:
    """A request's rows are the same alone, in any batch and at any width, bit for bit."""
    spec, requests = case
    encoder = FeatureEncoder(spec)
    width = max(len(request.candidates) for request in requests) + extra
    together = arrays(encoder.encode(requests, pad_to=width))
    for index, request in enumerate(requests):
        alone = arrays(FeatureEncoder(spec).encode([request], pad_to=len(request.candidates)))
        real = len(request.candidates)
        for name, found in together.items():
            if name.startswith("item"):
                np.testing.assert_array_equal(found[index, :real], alone[name][0])
                assert not found[index, real:].any()
            else:
                np.testing.assert_array_equal(found[index], alone[name][0])


@given(batches(), st.randoms(use_true_random=False))
def test_candidates_keep_their_order(
    case: tuple[FeatureSpec, list[RerankRequest]], random: object
) -> None:
    """Reordering the candidates reorders the rows and nothing else: index is position."""
    spec, requests = case
    request = requests[0]
    order = list(range(len(request.candidates)))
    random.shuffle(order)  # type: ignore[attr-defined]
    moved = RerankRequest(
        request_id=request.request_id,
        user=request.user,
        user_features=request.user_features,
        candidates=tuple(request.candidates[index] for index in order),
    )
    encoder = FeatureEncoder(spec)
    before, after = encoder.encode([request]), encoder.encode([moved])
    np.testing.assert_array_equal(before.item_cat[0, order], after.item_cat[0, : len(order)])
    np.testing.assert_array_equal(before.item_dense[0, order], after.item_dense[0, : len(order)])


@given(batches())
def test_rows_fit_the_embedding_tables(case: tuple[FeatureSpec, list[RerankRequest]]) -> None:
    spec, requests = case
    batch = FeatureEncoder(spec).encode(requests)
    for index, feature in enumerate(spec.item.categorical):
        column = batch.item_cat[:, :, index]
        assert column.min() >= 0
        assert column.max() < feature.rows
    assert np.abs(batch.item_dense).max() <= 10


@given(case=batches())
def test_a_full_cache_changes_nothing(case: tuple[FeatureSpec, list[RerankRequest]]) -> None:
    spec, requests = case
    expected = arrays(FeatureEncoder(spec).encode(requests))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "_CACHE_LIMIT", 2)
        encoder = FeatureEncoder(spec)
        for _ in range(3):
            found = arrays(encoder.encode(requests))
            assert all(len(rows) <= 2 for rows in encoder._rows.values())
            for name in expected:
                np.testing.assert_array_equal(found[name], expected[name])
