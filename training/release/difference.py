"""What is different between two releases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from contracts.features import FeatureSpec
from contracts.reading import Strict, read_yaml
from contracts.releases import ReleaseManifest


class Difference(Strict, kw_only=True, frozen=True):
    """A value that two releases have, or one of them; None where it has none."""

    section: str
    name: str
    first: Any
    second: Any


def differences(
    first: Path, second: Path, manifests: tuple[ReleaseManifest, ReleaseManifest]
) -> list[Difference]:
    """Differences of settings, data, lineage, gates, feature spec and engines of two releases.

    Metrics that both have are listed even where they are equal: they are what one looks for.

    Raises:
        ContractError: a feature spec cannot be read.
    """
    one, two = (_sections(folder, man) for folder, man in zip((first, second), manifests))
    found = [
        Difference(section=section, name=name, first=a, second=b)
        for section in one
        for name in dict.fromkeys((*one[section], *two[section]))
        if (a := one[section].get(name)) != (b := two[section].get(name))
    ]
    a, b = (manifest.metrics for manifest in manifests)
    both = [name for name in a if name in b]
    return found + [
        Difference(section="metrics", name=name, first=a[name], second=b[name]) for name in both
    ]


def _sections(folder: Path, manifest: ReleaseManifest) -> dict[str, dict[str, Any]]:
    engines = {
        engine.part: {
            "sha256": manifest.files[engine.file],
            **{k: v for k, v in msgspec.to_builtins(engine).items() if k not in ("part", "file")},
        }
        for engine in manifest.engines
    }
    return {
        "settings": flat(manifest.settings),
        "data": flat(msgspec.to_builtins(manifest.data)),
        "parents": flat(msgspec.to_builtins(manifest.parents)),
        "gates": flat(msgspec.to_builtins(manifest.gates)),
        "features": flat(msgspec.to_builtins(read_yaml(folder / "features.yaml", FeatureSpec))),
        "engines": flat({**engines, "profile": manifest.profile}),
    }


def flat(plain: Any, prefix: str = "") -> dict[str, Any]:
    """Nested plain data as one level: ``{"a": {"b": 1}}`` is ``{"a.b": 1}``.

    A list of things that have names goes by their names, so that one more of them is one
    difference and not as many as come after it.
    """
    if isinstance(plain, dict):
        items = plain.items()
    elif isinstance(plain, (list, tuple)) and all(map(_own_name, plain)):
        items = {_own_name(one): one for one in plain}.items()
    elif isinstance(plain, (list, tuple)) and any(isinstance(one, dict) for one in plain):
        items = dict(enumerate(plain)).items()
    else:
        return {prefix: plain}
    found: dict[str, Any] = {}
    for name, value in items:
        found |= flat(value, f"{prefix}.{name}" if prefix else str(name))
    return found


def _own_name(one: Any) -> Any:
    return one.get("name", one.get("kind")) if isinstance(one, dict) else None
