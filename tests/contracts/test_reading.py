"""Strict reading: every refusal names the file, the field and what is allowed."""

from __future__ import annotations

import json
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Optional

import msgspec
import pytest
from hypothesis import given

from contracts.features import FeatureSpec
from contracts.reading import (
    ContractError,
    Strict,
    canonical_json,
    read_json,
    read_yaml,
    stable_hash,
    write_json,
    write_yaml,
)
from tests.contracts.examples import SPEC, spec
from tests.contracts.strategies import specs


def changed(path: str, value: Any) -> dict[str, Any]:
    """SPEC with the value at a dotted path replaced, or removed where value is ``...``."""
    plain = json.loads(json.dumps(SPEC))
    *parents, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    at = plain
    for step in parents:
        at = at[step]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return plain


REFUSED = [
    ("lists", 3, "field lists: unknown (did you mean list_size?); allowed: version, user, item"),
    (
        "item.categorical.0.bucket",
        3,
        "field item.categorical[0].bucket: unknown (did you mean buckets?); "
        "allowed: name, width, buckets, vocabulary",
    ),
    ("feedback.1.unit", "s", "field feedback[1].unit: unknown; allowed: kind, type"),
    ("list_size", ..., "field list_size: missing; required: user, item, list_size"),
    ("feedback.0.type", ..., "field feedback[0].type: missing; required: kind, type"),
    ("list_size", "3", "field list_size: Expected `int`, got `str`"),
    ("list_size", True, "field list_size: Expected `int`, got `bool`"),
    ("list_size", 2.5, "field list_size: Expected `int`, got `float`"),
    ("list_size", None, "field list_size: Expected `int`, got `null`"),
    ("user", [], "field user: Expected `object`, got `array`"),
    ("version", 2, "field version: Invalid enum value 2; allowed: 1"),
    (
        "item.dense.0.transform",
        "log",
        "field item.dense[0].transform: Invalid enum value 'log'; allowed: identity, log1p",
    ),
    ("list_size", 0, "list_size is 0; allowed: 1 to 64"),
    ("item.dense.1.std", 0.0, "field item.dense[1]: feature score: std must be finite and above 0"),
]


@pytest.mark.parametrize("suffix", ["yaml", "json"])
@pytest.mark.parametrize(("path", "value", "message"), REFUSED)
def test_refusals(tmp_path: Path, suffix: str, path: str, value: Any, message: str) -> None:
    file = tmp_path / f"features.{suffix}"
    read, write = (read_yaml, write_yaml) if suffix == "yaml" else (read_json, write_json)
    write(file, SPEC)
    assert read(file, FeatureSpec) == spec()
    write(file, changed(path, value))
    with pytest.raises(ContractError) as error:
        read(file, FeatureSpec)
    assert str(error.value).startswith(f"{file}: ")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("", "not valid JSON"),
        ('{"a": 1, "a": 2}', "not valid JSON: key a is given twice"),
        ('{"a": NaN}', "not valid JSON: NaN is not a JSON number"),
        ('{"a": -Infinity}', "not valid JSON: -Infinity is not a JSON number"),
        ("[" * 100_000, "not valid JSON"),
        ("1" * 5_000, "not valid JSON"),
        ("null", "field (top): Expected `object`, got `null`"),
        ("[1]", "field (top): Expected `object`, got `array`"),
    ],
)
def test_broken_json(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "f.json"
    file.write_text(text)
    with pytest.raises(ContractError) as error:
        read_json(file, FeatureSpec)
    assert str(error.value).startswith(f"{file}: {message}")


def merges_of_merges(levels: int = 12) -> str:
    """A few hundred bytes that stand for 9 ** levels keys."""
    lines = ["a0: &a0 {k: v}"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 9)}]}}")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML"),
        ("", "field (top): Expected `object`, got `null`"),
        ("list_size: 3\nlist_size: 4", "not valid YAML: key list_size is given twice"),
        ("a: {b: 1, b: 2}", "not valid YAML: key b is given twice"),
        (merges_of_merges(), "not valid YAML: more than 10,000 keys in one mapping"),
        ("a: !!python/object/apply:os.getcwd []", "not valid YAML"),
        ("list_size: 2026-02-31", "field list_size: Expected `int"),
        ("a: " + "[" * 10_000, "not valid YAML"),
    ],
)
def test_broken_yaml(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(text)
    with pytest.raises(ContractError) as error:
        read_yaml(file, FeatureSpec)
    assert str(error.value).startswith(f"{file}: {message}")


@pytest.mark.parametrize("read", [read_yaml, read_json])
def test_files_that_cannot_be_read(tmp_path: Path, read: Any) -> None:
    with pytest.raises(ContractError, match="gone: no such file"):
        read(tmp_path / "gone", FeatureSpec)
    with pytest.raises(ContractError, match="cannot be read"):
        read(tmp_path, FeatureSpec)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ContractError, match="binary: cannot be read"):
        read(tmp_path / "binary", FeatureSpec)


class Inner(Strict, kw_only=True, frozen=True):
    mode: Literal["a", "b"] = "a"


class Outer(Strict, kw_only=True, frozen=True):
    maybe: Optional[Inner] = None
    many: tuple[Inner, ...] = ()
    named: dict[str, Inner] = msgspec.field(default_factory=dict)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"maybe": {"mod": "a"}}, "field maybe.mod: unknown (did you mean mode?); allowed: mode"),
        ({"many": [{}, {"x": 1}]}, "field many[1].x: unknown; allowed: mode"),
        ({"named": {"k": {"mode": "c"}}}, "Invalid enum value 'c'; allowed: a, b"),
    ],
)
def test_places_inside_containers(tmp_path: Path, raw: Any, message: str) -> None:
    write_json(tmp_path / "f.json", raw)
    with pytest.raises(ContractError) as error:
        read_json(tmp_path / "f.json", Outer)
    assert message in str(error.value)


@given(specs())
def test_round_trips_keep_value_and_hash(one: FeatureSpec) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for read, write in ((read_yaml, write_yaml), (read_json, write_json)):
            write(f"{folder}/f", one)
            again = read(f"{folder}/f", FeatureSpec)
            assert again == one
            assert again.hash() == one.hash()


def test_the_hash_knows_content_not_spelling() -> None:
    reordered = dict(reversed(list(SPEC.items())))
    explicit = {**SPEC, "version": 1}
    whole = changed("user.dense.0.mean", 30)
    assert {spec(**each).hash() for each in (reordered, explicit, whole)} == {spec().hash()}
    assert spec(list_size=4).hash() != spec().hash()


def test_the_hash_is_what_releases_out_there_carry() -> None:
    """A change here orphans every dataset and release: raise the spec's version instead."""
    canonical = '{"a":true,"b":[1,2.5,null,"ü"]}'.encode()
    assert canonical_json({"b": [1, 2.5, None, "ü"], "a": True}) == canonical
    assert stable_hash({"b": [1, 2.5, None, "ü"], "a": True}) == sha256(canonical).hexdigest()
    assert spec().hash() == "be4ae59cfa56f12e3edcf56070d0c986796faf9e041cb55c40176f34c9c353f9"
