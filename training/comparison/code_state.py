"""A hash of the code that a result depends on: without comments, docstrings or layout.

It covers what makes and measures every result, and of the rest what the system's own modules
import: a change in one peer leaves the others' results as they are.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from contracts.reading import stable_hash

ROOT = Path(__file__).resolve().parents[2]

#: Where slates begin, by the source of a case.
SOURCES = {
    "simulator": ("training.sources.simulator", "training.sources.writing"),
    "kuairand": ("training.sources.kuairand", "training.sources.writing"),
}
#: What may change the slates of any source.
ANY_SLATES = ("training/comparison/thinning.py", "training/comparison/utilities.py")
#: What every result depends on beside its slates.
ALWAYS = (
    "training/data",
    "contracts/encoding.py",
    "contracts/features.py",
    "training/evaluation/alignment.py",
    "training/evaluation/metrics.py",
    "training/evaluation/truth.py",
)
#: What a result depends on where its system imports it. Settings are part of a row, and what
#: stores, prints or serves changes none.
WHERE_USED = (
    "training/baselines",
    "training/decoding",
    "training/losses",
    "training/model",
    "training/pairs",
    "training/alarms.py",
    "training/labels.py",
    "training/loop.py",
    "training/objectives.py",
    "training/optimism.py",
    "training/post_train.py",
    "training/pretrain.py",
    "training/validation.py",
)


@cache
def slates_state(source: str, root: Path = ROOT) -> str:
    """Eight hex digits for the code that a source's slates are made by."""
    used = imported(SOURCES[source], root)
    own = [file for file in _files(root, "training/sources") if file in used]
    return _state(root, [*own, *(root / name for name in ANY_SLATES)])[:8]


@cache
def code_state(modules: tuple[str, ...], root: Path = ROOT) -> str:
    """Twelve hex digits for the results of a system that begins at these modules."""
    used = imported(modules, root)
    own = [file for part in WHERE_USED for file in _files(root, part) if file in used]
    always = [file for part in ALWAYS for file in _files(root, part)]
    return _state(root, [*always, *own])[:12]


def imported(modules: tuple[str, ...], root: Path = ROOT) -> set[Path]:
    """The project's files that are reached from modules by imports, their own among them."""
    found: set[Path] = set()
    waiting = list(modules)
    while waiting:
        file = _file_of(waiting.pop(), root)
        if file is not None and file not in found:
            found.add(file)
            waiting += _imports(ast.parse(file.read_text("utf-8")))
    return found


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            # What is imported may be a module of the package.
            yield from (f"{node.module}.{one.name}" for one in node.names)


def _file_of(module: str, root: Path) -> Path | None:
    path = root.joinpath(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file
    return None


def _files(root: Path, part: str) -> list[Path]:
    path = root / part
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def _state(root: Path, files: list[Path]) -> str:
    return stable_hash(
        [[str(file.relative_to(root)), meaning(file.read_text("utf-8"))] for file in files]
    )


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
