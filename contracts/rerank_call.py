"""One rerank over JSON: what a caller sends to TorchServe, and what comes back.

Triton's clients send tensors instead (``handlers/client.py``); the request is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contracts.reading import ContractError, Strict, convert, decode_json
from contracts.slates import RerankRequest

_INT64 = 1 << 63
_FLOAT32_MAX = 3.4028234663852886e38
_WHERE = "request"


class RerankCall(Strict, kw_only=True, frozen=True):
    """A request and how its list is to be chosen.

    Attributes:
        temperature: 0 takes the best item each time; above it, items are drawn, and ``seed``
            (64 bits, signed) makes the draw repeatable.
    """

    request: RerankRequest
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= _FLOAT32_MAX:  # NaN too
            raise ValueError(f"temperature is {self.temperature}; allowed: 0 (greedy) or above")
        if not -_INT64 <= self.seed < _INT64:
            raise ValueError(f"seed is {self.seed}; allowed: what fits into 64 bits")


class RerankAnswer(Strict, kw_only=True, frozen=True):
    """The list to show.

    Attributes:
        items: best first; at most n of them, and no item twice.
        indices: the place of each item in the request's candidates, from 0.
        log_prob: natural log-probability of each choice under the release's policy.
        passes: decoder passes.
        relaxed: what the rules had to give (``contracts/rules.py``): pins that do not stand, and
            positions over the limit.
    """

    request_id: str
    items: tuple[str, ...]
    indices: tuple[int, ...]
    log_prob: tuple[float, ...]
    release: str
    passes: int
    relaxed: tuple[int, int]


class RerankRefusal(Strict, kw_only=True, frozen=True):
    """What comes back in place of a list: why there is none."""

    error: str


def read_call(body: object) -> RerankCall:
    """A call from its JSON, or from what a server has already made of it.

    Raises:
        ContractError: it is none; the message names the field, the cause and what is allowed.
    """
    if isinstance(body, (bytes, bytearray, str)):
        if not body:
            raise ContractError(f'{_WHERE}: empty; allowed: {{"request": ...}} as JSON')
        return decode_json(body, RerankCall, _WHERE)
    if isinstance(body, Mapping):
        plain: dict[Any, Any] = dict(body)
        return convert(plain, RerankCall, _WHERE)
    raise ContractError(f'{_WHERE}: is {type(body).__name__}; allowed: {{"request": ...}} as JSON')
