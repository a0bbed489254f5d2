"""Who may know whom: the import rules of docs/architecture.md, read from the code itself."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("contracts", "training", "handlers", "streaming", "deploy", "benchmarks")
#: contracts is the ground; training, handlers and streaming stand on it and never on one another.
MAY_IMPORT = {
    "contracts": {"contracts"},
    "training": {"contracts", "training"},
    "handlers": {"contracts", "handlers"},
    "streaming": {"contracts", "streaming"},
    "deploy": set(ROOMS) - {"benchmarks"},
    "benchmarks": set(ROOMS),
}
#: The traffic simulator stands for the world outside: a ranking server (it uses the client) and
#: the users (it asks the simulated world what they do). Nothing in streaming imports it.
OUTSIDE = ("streaming/simulate.py", "streaming/traffic/")
#: What contracts may need: a ranking server installs these for it, and no more.
CONTRACTS_NEED = {"msgspec", "numpy", "pyarrow", "xxhash", "yaml"}


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return found


def files_of(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    wrong = []
    for path in files_of(room):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(OUTSIDE):
            continue
        ours = {one.partition(".")[0] for one in imports(path)} & set(ROOMS)
        wrong += [f"{name} imports {other}" for other in sorted(ours - MAY_IMPORT[room])]
    assert not wrong


def test_nothing_in_streaming_imports_the_world_outside() -> None:
    outside = ("streaming.simulate", "streaming.traffic")
    wrong = [
        path.name
        for path in files_of("streaming")
        if not path.relative_to(ROOT).as_posix().startswith(OUTSIDE)
        and any(name.startswith(outside) for name in imports(path))
    ]
    assert not wrong


def test_contracts_need_no_more_than_a_ranking_server_has() -> None:
    import sys

    needed = {name.partition(".")[0] for path in files_of("contracts") for name in imports(path)}
    foreign = needed - set(sys.stdlib_module_names) - {"contracts"}
    assert foreign <= CONTRACTS_NEED
