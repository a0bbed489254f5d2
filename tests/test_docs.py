"""Documents name only what exists: relative links, files, and functions in files."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ROOMS = "contracts|training|handlers|streaming|deploy|benchmarks|tests|docs|model_repository"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_files_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    links = [
        document.parent / link.partition("#")[0]
        for link in re.findall(r"\]\(([^)\s]+)\)", text)
        if "://" not in link and not link.startswith("#")
    ]
    files = [ROOT / name for name in re.findall(rf"\b(?:{ROOMS})/[\w/]*\w\.(?:py|md|yaml)\b", text)]
    missing = sorted({str(path) for path in (*links, *files) if not path.exists()})
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_left_to_be_filled_in(document: Path) -> None:
    assert not re.findall(r"@@|\bTODO\b|\bTBD\b|\bFIXME\b", document.read_text(encoding="utf-8"))


def test_paper_index_names_what_is_there() -> None:
    text = (ROOT / "docs" / "paper_index.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+\.py)` `(\w+)`((?:, `\w+`)*)", text)
    assert len(named) > 10
    for file, first, more in named:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        defined = {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        }
        assert {first, *re.findall(r"\w+", more)} <= defined, file
