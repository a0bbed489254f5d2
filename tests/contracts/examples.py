"""One small feature spec and request, and what they look like as plain data."""

from __future__ import annotations

from typing import Any

from contracts.features import FeatureSpec
from contracts.reading import convert
from contracts.slates import Candidate, RerankRequest, Scalar

SPEC: dict[str, Any] = {
    "user": {
        "categorical": [{"name": "user", "width": 8, "buckets": 1000}],
        "dense": [{"name": "age", "mean": 30.0, "std": 10.0}],
    },
    "item": {
        "categorical": [
            {"name": "item", "width": 8, "buckets": 1000},
            {"name": "colour", "width": 4, "vocabulary": ["red", "true", "1"]},
        ],
        "dense": [{"name": "price", "transform": "log1p"}, {"name": "score"}],
    },
    "list_size": 3,
    "candidate_buckets": [4, 8],
    "feedback": [
        {"kind": "click", "type": "binary"},
        {"kind": "watch", "type": "continuous"},
    ],
    "utility": "click",
}


def spec(**changes: Any) -> FeatureSpec:
    return convert({**SPEC, **changes}, FeatureSpec, "features.yaml")


def request(*values: Scalar, feature: str = "price", **fields: Any) -> RerankRequest:
    """A request with one candidate (i0, i1, ...) for each value of an item feature."""
    candidates = tuple(
        Candidate(item=f"i{index}", features={feature: value}) for index, value in enumerate(values)
    )
    return RerankRequest(**{"request_id": "q", "user": "u", "candidates": candidates, **fields})
