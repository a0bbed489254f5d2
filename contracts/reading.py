"""Strict reading of YAML and JSON files into typed structs, and their stable hashes."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import typing
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

T = TypeVar("T")


class ContractError(ValueError):
    """A file or a value breaks a contract. The message names where, what, and what is allowed."""


class Strict(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Base of every struct that is read from a file: immutable, and unknown fields are errors.

    Subclasses repeat ``kw_only=True`` (msgspec does not inherit it) and ``frozen=True`` (for mypy).
    """


def read_yaml(path: str | Path, kind: type[T]) -> T:
    """Read a YAML file into ``kind``; raises ContractError that names file, field and cause."""
    path = Path(path)
    try:
        raw = yaml.safe_load(_read_text(path))
    except yaml.YAMLError as error:
        raise ContractError(f"{path}: not valid YAML: {error}") from error
    return convert(raw, kind, str(path))


def read_json(path: str | Path, kind: type[T]) -> T:
    """Read a JSON file into ``kind``; raises ContractError that names file, field and cause."""
    path = Path(path)
    try:
        raw = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise ContractError(f"{path}: not valid JSON: {error}") from error
    return convert(raw, kind, str(path))


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ContractError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ContractError(f"{path}: cannot be read: {error}") from error


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
    cause, _, path = str(error).partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    unknown = re.match(r"Object contains unknown field `(.*)`", cause)
    if not unknown:
        return f"field {path or '(top)'}: {cause}"
    names = [field.name for field in _fields_at(kind, path)]
    near = difflib.get_close_matches(unknown.group(1), names, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    where = f"{path}." if path else ""
    return f"field {where}{unknown.group(1)}: unknown{hint}; allowed: {', '.join(names)}"


def _fields_at(kind: Any, path: str) -> tuple[msgspec.structs.FieldInfo, ...]:
    """The fields of the struct that ``path`` (as msgspec writes it) leads to, or none."""
    for step in re.findall(r"[^.\[\]]+|\[[^\]]*\]", path):
        if step.startswith("["):
            args = typing.get_args(kind)
            kind = args[-1] if args else None
        else:
            types = {field.name: field.type for field in _struct_fields(kind)}
            kind = types.get(step)
        kind = _without_none(kind)
    return _struct_fields(kind)


def _struct_fields(kind: Any) -> tuple[msgspec.structs.FieldInfo, ...]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return msgspec.structs.fields(kind)
    return ()


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
