"""Strict reading of YAML and JSON files into typed structs, and their stable hashes."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import typing
from collections import Counter
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

T = TypeVar("T")

#: In one mapping of a YAML file, merged ones included.
MAX_KEYS = 10_000


class ContractError(ValueError):
    """A file or a value breaks a contract. The message names where, what, and what is allowed."""


class Strict(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Base of every struct that is read from a file: immutable, and unknown fields are errors.

    Subclasses repeat ``kw_only=True`` (msgspec does not inherit it) and ``frozen=True`` (for mypy).
    """


def read_yaml(path: str | Path, kind: type[T]) -> T:
    """Read a YAML file into ``kind``; raises ContractError that names file, field and cause."""
    path = Path(path)
    text = _read_text(path)
    try:
        raw = yaml.load(text, Loader=_UniqueKeys)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ContractError(f"{path}: not valid YAML: {error}") from error
    return convert(raw, kind, str(path))


def read_json(path: str | Path, kind: type[T]) -> T:
    """Read a JSON file into ``kind``; raises ContractError that names file, field and cause."""
    path = Path(path)
    text = _read_text(path)
    try:
        raw = json.loads(text, object_pairs_hook=_unique_pairs, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ContractError(f"{path}: not valid JSON: {error}") from error
    return convert(raw, kind, str(path))


class _UniqueKeys(yaml.SafeLoader):
    """A SafeLoader to which a key given twice is an error; YAML's own would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        own = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        twice = next((key for key, count in own.items() if count > 1), None)
        if twice is not None:
            raise ValueError(f"key {twice} is given twice{node.start_mark}")
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Bring merged keys (``<<``) in; merges of merges of merges could fill the memory."""
        super().flatten_mapping(node)
        if len(node.value) > MAX_KEYS:
            raise ValueError(f"more than {MAX_KEYS:,} keys in one mapping{node.start_mark}")


#: Times are text in every contract, so that one that is not quoted is text too.
_UniqueKeys.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise ValueError(f"key {next(k for k in keys if keys.count(k) > 1)} is given twice")
    return dict(pairs)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ContractError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ContractError(f"{path}: cannot be read: {error}") from error


def decode_json(text: bytes | bytearray | str, kind: type[T], where: str) -> T:
    """Decode JSON that came over a network into ``kind``. Of a key given twice the last counts.

    Raises:
        ContractError: it is not JSON, or "<where>: field <path>: <cause>; allowed: ...".
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as error:
        raise ContractError(f"{where}: {_explain(error, kind)}") from error
    except (ValueError, RecursionError) as error:
        raise ContractError(f"{where}: not valid JSON: {error}") from error


def convert(raw: Any, kind: type[T], where: str) -> T:
    """Turn plain data into ``kind`` without any coercion of types.

    Raises:
        ContractError: "<where>: field <path>: <cause>; allowed: ...".
    """
    try:
        return msgspec.convert(raw, kind, strict=True)
    except msgspec.ValidationError as error:
        raise ContractError(f"{where}: {_explain(error, kind)}") from error


def _explain(error: msgspec.ValidationError, kind: Any) -> str:
    text = str(error)
    cause, _, path = text.rpartition(" - at `$") if " - at `$" in text else (text, "", "")
    path = path.rstrip("`").lstrip(".")
    inside = f"{path}." if path else ""
    here = _type_at(kind, path)
    names = [field.encode_name for field in _struct_fields(here)]
    if missing := re.fullmatch(r"Object missing required field `(.*)`", cause, re.DOTALL):
        required = [field.encode_name for field in _struct_fields(here) if field.required]
        return f"field {inside}{missing.group(1)}: missing; required: {', '.join(required)}"
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", cause, re.DOTALL):
        near = difflib.get_close_matches(unknown.group(1), names, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        return f"field {inside}{unknown.group(1)}: unknown{hint}; allowed: {', '.join(names)}"
    if cause.startswith("Invalid enum value") and (allowed := _literals(here)):
        cause += f"; allowed: {', '.join(allowed)}"
    return f"field {path or '(top)'}: {cause}"


def _type_at(kind: Any, path: str) -> Any:
    """The type that ``path`` (as msgspec writes it) leads to from ``kind``, or None."""
    for step in re.findall(r"[^.\[\]]+|\[[^\]]*\]", path):
        if step.startswith("["):  # an element: tuple[T, ...], list[T], dict[str, T]
            args = [arg for arg in typing.get_args(kind) if arg is not Ellipsis]
            kind = args[-1] if args else None
        else:
            types = {field.encode_name: field.type for field in _struct_fields(kind)}
            kind = types.get(step)
        kind = _without_none(kind)
    return kind


def _struct_fields(kind: Any) -> tuple[msgspec.structs.FieldInfo, ...]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return msgspec.structs.fields(kind)
    return ()


def _literals(kind: Any) -> list[str]:
    """The values of a Literal, or of those in a Union."""
    if typing.get_origin(kind) is typing.Literal:
        return [str(value) for value in typing.get_args(kind)]
    parts = typing.get_args(kind) if typing.get_origin(kind) is typing.Union else ()
    return [value for part in parts for value in _literals(part)]


def _without_none(kind: Any) -> Any:
    parts = [part for part in typing.get_args(kind) if part is not type(None)]
    is_optional = type(None) in typing.get_args(kind)
    return parts[0] if is_optional and len(parts) == 1 else kind


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces: the same bytes for the same content."""
    plain = msgspec.to_builtins(value)
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def stable_hash(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of a struct or of plain data."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def write_yaml(path: str | Path, value: Any) -> None:
    """Write a struct as YAML in the order of its fields."""
    text = yaml.safe_dump(msgspec.to_builtins(value), sort_keys=False, allow_unicode=True)
    Path(path).write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write a struct as indented JSON in the order of its fields."""
    text = json.dumps(msgspec.to_builtins(value), indent=2, ensure_ascii=False)
    Path(path).write_text(text + "\n", encoding="utf-8")
