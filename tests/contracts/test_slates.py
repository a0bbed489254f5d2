"""Impossible slates and requests are refused."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.reading import ContractError, convert
from contracts.slates import RerankRequest, Slate

SLATE: dict[str, Any] = {
    "request_id": "q",
    "user": "u",
    "time": 1,
    "candidates": [{"item": "a"}, {"item": "b", "score": 1, "features": {"x": None}}],
    "exposed": [1, 0],
    "log_prob": [-0.5, 0],
    "feedback": [{"position": 1, "kind": "click", "value": 1, "time": 2}],
}


def feedback(**changes: Any) -> dict[str, Any]:
    return {"position": 0, "kind": "click", "value": 1.0, "time": 2, **changes}


def test_a_slate() -> None:
    slate = convert(SLATE, Slate, "slate")
    assert slate.exposed == (1, 0)
    assert slate.candidates[1].score == 1.0
    assert slate.feedback[0].value == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"exposed": [0, 0]}, "slate q: exposed names a candidate twice"),
        ({"exposed": [0, 2]}, "slate q: exposed must hold indices 0 to 1"),
        ({"exposed": [-1, 0]}, "slate q: exposed must hold indices 0 to 1"),
        ({"exposed": [0.0]}, "field exposed[0]: Expected `int`, got `float`"),
        ({"log_prob": [0.0]}, "slate q: log_prob and exposed differ in length"),
        ({"feedback": [feedback(position=2)]}, "slate q: feedback at position 2"),
        ({"feedback": [feedback(position=-1)]}, "slate q: feedback at position -1"),
        ({"feedback": [feedback(value=float("nan"))]}, "slate q: feedback value nan"),
        ({"feedback": [feedback(), feedback()]}, "slate q: feedback click twice at 0"),
        ({"candidates": [{"item": 7}]}, "field candidates[0].item: Expected `str`, got `int`"),
        (
            {"candidates": [{"item": "a", "features": {"x": [1]}}]},
            "got `array`",
        ),
        ({"candidate": []}, "field candidate: unknown (did you mean candidates?)"),
    ],
)
def test_impossible_slates(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError) as error:
        convert({**SLATE, **change}, Slate, "slate")
    assert message in str(error.value)


def test_values_keep_their_types() -> None:
    """A boolean must not become a number, nor a number text: the encoder tells them apart."""
    features = {"a": True, "b": 1, "c": "1", "d": 1.0, "e": None}
    raw = {"request_id": "q", "user": "u", "candidates": [{"item": "i", "features": features}]}
    read = convert(raw, RerankRequest, "request").candidates[0].features
    assert {name: (type(value), value) for name, value in read.items()} == {
        name: (type(value), value) for name, value in features.items()
    }
