"""Calls for TorchServe tests: good ones of every kind, and bad ones with what they are told."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import msgspec

from contracts.rerank_call import RerankCall
from contracts.rules import GroupLimit, ListRules, Pin
from tests.serving.toy_engines import toy_request


def toy_call(number: int) -> RerankCall:
    """Greedy and sampled, with and without rules and repeated items, in buckets of every size."""
    candidates = 400 if number % 50 == 49 else 1 + (number * 7) % 40
    request = toy_request(number, candidates)
    if number % 5 == 1:
        request = msgspec.structs.replace(
            request, candidates=(*request.candidates, request.candidates[0])
        )
    if number % 3 == 0:
        pinned = (
            Pin(position=0, item=request.candidates[-1].item),
            Pin(position=3, item="not among them"),
            Pin(position=9, item=request.candidates[0].item),  # beyond the list
        )
        limit = GroupLimit(feature="topic", most=1 + number % 2, window=3)
        request = msgspec.structs.replace(request, rules=ListRules(pinned=pinned, limit=limit))
    elif number % 3 == 1:
        limit = GroupLimit(feature="topic", most=1, window=2)
        request = msgspec.structs.replace(request, rules=ListRules(limit=limit))
    temperature = (0.0, 0.7)[number % 2]
    return RerankCall(request=request, temperature=temperature, seed=31 * number - 1000)


def as_json(call: RerankCall) -> bytes:
    return msgspec.json.encode(call)


def changed(**fields: Any) -> bytes:
    """A good call with fields of the request put in or replaced."""
    plain = json.loads(as_json(RerankCall(request=toy_request(1, 6))))
    plain["request"].update(fields)
    return json.dumps(plain).encode()


def candidates(count: int, **features: Any) -> list[dict[str, Any]]:
    return [{"item": f"i{index}", "features": features} for index in range(count)]


#: Name -> body and what the refusal says.
BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "request: empty"),
    "not JSON": (b"items=1&items=2", "not valid JSON"),
    "cut short": (changed()[:-40], "not valid JSON"),
    "not text": (b"\xff\xfe\x00", "not valid JSON"),
    "a list": (b"[1, 2]", r"field \(top\): Expected `object`, got `array`"),
    "null": (b"null", r"Expected `object`, got `null`"),
    "tensors of Triton": (b'{"inputs": [{"name": "ITEM_CAT"}]}', "field inputs: unknown"),
    "no wrapper": (b'{"request_id": "1"}', "field request_id: unknown"),
    "no request": (b'{"temperature": 0.5}', "field request: missing"),
    "no user": (b'{"request": {"request_id": "1", "candidates": []}}', "request.user: missing"),
    "unknown field": (changed(candidats=[]), "did you mean candidates"),
    "numbers for candidates": (
        changed(candidates=[1, 2]),
        r"request.candidates\[0\]: Expected `object`",
    ),
    "no candidates": (changed(candidates=[]), "no candidates; allowed: at least one"),
    "too many candidates": (changed(candidates=candidates(513)), "513 candidates; allowed: 1 to"),
    "NaN": (changed(candidates=candidates(2, price=float("nan"))), "not valid JSON"),
    "infinity": (changed(user_features={"age": float("inf")}), "not valid JSON"),
    "beyond any number": (changed().replace(b'"age": 21', b'"age": 1e999'), "out of range"),
    "below zero under log1p": (changed(candidates=candidates(2, price=-1)), "under log1p"),
    "a word for a number": (changed(user_features={"age": "old"}), "'old' is str; allowed: number"),
    "temperature below zero": (b'{"request": %s, "temperature": -1}', "temperature is -1"),
    "temperature beyond float32": (b'{"request": %s, "temperature": 1e300}', "temperature is 1e"),
    "seed of 65 bits": (b'{"request": %s, "seed": 18446744073709551616}', "fits into 64 bits|int"),
    "seed that is no number": (b'{"request": %s, "seed": "7"}', "field seed: Expected `int`"),
    "pin before the list": (
        changed(rules={"pinned": [{"position": -1, "item": "i"}]}),
        "position is -1",
    ),
    "limit of none": (changed(rules={"limit": {"feature": "topic", "most": 0}}), "most is 0"),
}
_REQUEST = msgspec.json.encode(toy_request(1, 6))
BAD = {name: (body.replace(b"%s", _REQUEST), told) for name, (body, told) in BAD.items()}


def unpack(archive: Path, folder: Path) -> Path:
    """The folder of an unpacked archive, as TorchServe's worker sees it."""
    shutil.rmtree(folder, ignore_errors=True)
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
    return folder
