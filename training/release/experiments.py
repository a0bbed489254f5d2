"""Which releases the experiment manifests name; pruning must not delete one of them."""

from __future__ import annotations

import re
from pathlib import Path

from contracts.reading import ContractError, read_yaml

_NAME = re.compile(r"(?<![A-Za-z0-9])r[0-9]{4,}(?![A-Za-z0-9])")
_KINDS = (".yaml", ".yml", ".json")  # JSON is YAML, too


def releases_named(folder: Path) -> dict[str, Path]:
    """Every release that a manifest below ``folder`` names, anywhere in it, and the file.

    Rather one too many than one too few: names count in keys, values and within longer texts
    (``gref_r0007``), and comments count, for an arm that is commented out may come back.

    Raises:
        ContractError: a manifest cannot be read, so that what it names is not known.
    """
    named: dict[str, Path] = {}
    if not folder.is_dir():
        raise ContractError(f"{folder}: no such folder of experiments")
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in _KINDS or path.is_dir():
            continue
        if not read_yaml(path, dict):
            raise ContractError(f"{path}: empty; allowed: an experiment manifest")
        for name in _NAME.findall(path.read_text(encoding="utf-8")):
            named.setdefault(name, path)
    return named
