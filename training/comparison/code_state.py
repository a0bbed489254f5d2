"""A hash of the code that a result depends on: without comments, docstrings or layout."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from contracts.reading import stable_hash

TRAINING = Path(__file__).resolve().parents[1]
ROOT = TRAINING.parent

#: What every result depends on.
DATA = ("training/data", "training/sources", "contracts/encoding.py", "contracts/features.py")
#: What of GReF's network the peers are built of.
BLOCKS = ("training/model/encoder.py", "training/model/layers.py", "training/decoding/choice.py")
METRICS = ("training/evaluation/metrics.py", "training/evaluation/alignment.py")
GREF = (
    "training/model",
    "training/decoding",
    "training/losses",
    "training/pairs",
    "training/objectives.py",
    "training/labels.py",
    "training/loop.py",
    "training/pretrain.py",
    "training/post_train.py",
    "training/validation.py",
)
#: Peers share GReF's blocks; two search, or learn from, the listwise evaluator.
PEERS = (
    *BLOCKS,
    "training/baselines",
    "training/pairs/beam.py",
    "training/pairs/ensemble.py",
    "training/pairs/evaluator.py",
    "training/pairs/kinship.py",
    "training/pairs/other_kinds.py",
    "training/pairs/next_items.py",
)


@cache
def sources_state() -> str:
    """Eight hex digits for the code that slates are made by."""
    return _state(ROOT / "training" / "sources")[:8]


@cache
def code_state(gref: bool) -> str:
    """Twelve hex digits for GReF's results, or for those of the peers."""
    parts = (*DATA, *METRICS, *(GREF if gref else PEERS))
    return stable_hash({part: _state(ROOT / part) for part in parts})[:12]


def _state(path: Path) -> str:
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    files = [file for file in files if not file.name.startswith("avito")]  # no case is of it
    return stable_hash([[file.name, meaning(file.read_text("utf-8"))] for file in files])


def meaning(source: str) -> str:
    """The program's syntax tree as text, docstrings left out."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list) or not body or not isinstance(body[0], ast.Expr):
            continue
        if isinstance(body[0].value, ast.Constant) and isinstance(body[0].value.value, str):
            body[0].value.value = ""
    return ast.dump(tree)
