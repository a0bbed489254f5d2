"""Prometheus, promtool and node_exporter, where they are installed; the rules, and their series."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
MONITORING = ROOT / "deploy" / "monitoring"
RULES = sorted((MONITORING / "rules").glob("*.yaml"))
RULE_TESTS = sorted((Path(__file__).parent / "rules").glob("*.yaml"))


def program(*names: str) -> str:
    """The first of these programs on PATH; without one the test is skipped, a failure under CI."""
    for name in names:
        if found := shutil.which(name):
            return found
    pytest.skip(f"no {names[0]} on PATH (Debian: prometheus, prometheus-node-exporter)")


def rules_of(path: Path) -> list[dict[str, Any]]:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [rule for group in content["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    """Every alerting rule by name."""
    every = [rule for path in RULES for rule in rules_of(path) if "alert" in rule]
    found = {rule["alert"]: rule for rule in every}
    assert len(found) == len(every), "two alerts have one name"
    return found


#: Strings, durations in brackets, and offsets.
_NO_SERIES = re.compile(r'"(?:[^"\\]|\\.)*"|\[[^\]]*\]|\boffset\s+\w+')
_LABEL_LISTS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_SELECTOR = re.compile(r"(?<![\w:.$])([a-zA-Z_:][\w:]*)(?![\w:])(\s*\{[^}]*\})?(?!\s*\()")
_WORDS = frozenset({"and", "or", "unless", "bool", "offset", "time", "inf", "nan"})


def selectors(expr: str) -> set[str]:
    """The series that an expression asks for, as selectors: ``name{labels}``.

    Strings outside of braces (arguments of label_replace), lists of labels, durations, and the
    names of functions are none.
    """
    bare = _LABEL_LISTS.sub(" ", expr)
    parts = re.split(r"(\{[^}]*\})", bare)
    bare = "".join(part if part.startswith("{") else _NO_SERIES.sub(" ", part) for part in parts)
    return {
        name + (labels or "").strip()
        for name, labels in _SELECTOR.findall(bare)
        if name not in _WORDS and not re.fullmatch(r"[0-9.e]+", name)
    }
