"""How releases look on a terminal and as plain data for scripts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from contracts.reading import ContractError
from contracts.releases import CHECKPOINT, REPORT, DataVersion, Gate, ReleaseManifest
from training.release.difference import Difference
from training.release.store import Ancestor, ReleaseStore


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def in_words(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def data_in_words(data: DataVersion) -> str:
    """``kuairand 3f2a90c1``, or ``feedback v13 to v19`` of a table."""
    if data.last_version is None:
        return f"{data.dataset} {data.fingerprint[:8]}"
    first = "" if data.first_version is None else f"v{data.first_version} to "
    return f"{data.dataset} {first}v{data.last_version}"


def rows(store: ReleaseStore, champion: str | None) -> list[dict[str, Any]]:
    """Every release as plain data; one whose manifest cannot be read says so in ``damaged``."""
    found: list[dict[str, Any]] = []
    for name in store.names():
        row: dict[str, Any] = {"name": name, "champion": name == champion}
        try:
            manifest = store.manifest(name)
        except ContractError as error:
            found.append({**row, "damaged": str(error)})
            continue
        found.append(
            {
                **row,
                "created": manifest.created,
                "parent": manifest.parents.release,
                "data": msgspec.to_builtins(manifest.data),
                "gates_passed": sum(gate.passed for gate in manifest.gates),
                "gates": len(manifest.gates),
                "profile": manifest.profile,
                "checkpoint": CHECKPOINT in manifest.files,
                "bytes": size_of(store.path(name)),
            }
        )
    return found


def release_table(plain: list[dict[str, Any]]) -> Table:
    """The rows as a table."""
    table = Table(box=None, pad_edge=False)
    for head in ("release", "", "created (UTC)", "parent", "data", "gates", "profile", "size"):
        table.add_column(head, justify="right" if head == "size" else "left")
    for row in plain:
        mark = "[bold green]champion[/]" if row["champion"] else ""
        if "damaged" in row:
            table.add_row(row["name"], f"{mark}[red] damaged[/]".strip())
            continue
        table.add_row(
            row["name"],
            mark,
            row["created"][:16].replace("T", " "),
            row["parent"] or "-",
            escape(data_in_words(msgspec.convert(row["data"], DataVersion))),
            f"{row['gates_passed']}/{row['gates']}",
            row["profile"],
            in_words(row["bytes"]),
        )
    return table


def facts_table(folder: Path, manifest: ReleaseManifest) -> Table:
    """What a manifest says, without settings and files."""
    report = folder / REPORT
    has_report = any(name.startswith(f"{REPORT}/") for name in manifest.files)
    parents = manifest.parents
    engines = (f"{e.part} {e.format} {e.precision} on {e.backend}" for e in manifest.engines)
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in (
        ("created", manifest.created),
        ("data", data_in_words(manifest.data)),
        ("fingerprint", manifest.data.fingerprint),
        ("feature spec", manifest.feature_spec_sha256),
        ("anchor", parents.anchor or "-"),
        ("reference", parents.reference_sha256 or "-"),
        ("list", f"{manifest.list_size} items, {manifest.heads} heads"),
        ("profile", manifest.profile),
        ("engines", "; ".join(engines)),
        ("metrics", ", ".join(f"{k} {v:.4g}" for k, v in manifest.metrics.items()) or "-"),
        ("files", f"{len(manifest.files)}, {in_words(size_of(folder))}"),
        ("checkpoint", str(folder / CHECKPOINT) if CHECKPOINT in manifest.files else "none"),
        ("report", str(report) if has_report else "none"),
    ):
        table.add_row(name, escape(value))
    return table


def gates_table(gates: Iterable[Gate]) -> Table:
    table = Table(box=None, pad_edge=False)
    for head in ("gate", "", "value", "limit", "detail"):
        table.add_column(head)
    for gate in gates:
        state = "[green]pass[/]" if gate.passed else "[red]FAIL[/]"
        values = f"{gate.value:.4g}", f"{gate.limit:.4g}"
        table.add_row(escape(gate.name), state, *values, escape(gate.detail))
    return table


def lineage_tree(steps: list[Ancestor], champion: str | None) -> Tree:
    """A lineage from the anchor down to the release."""
    tree: Tree | None = None
    node: Tree | None = None
    for step in reversed(steps):
        told = [step.name]
        if step.manifest:
            told += [step.manifest.created, data_in_words(step.manifest.data)]
            told += ["" if step.parent else "anchor"]
        told += ["champion" if step.name == champion else ""]
        told += ["" if step.state == "present" else step.state]
        label = escape("  ".join(filter(None, told)))
        node = node.add(label) if node else Tree(label)
        tree = tree or node
    assert tree is not None
    return tree


def difference_table(found: list[Difference], first: str, second: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for head in ("", "what", first, second):
        table.add_column(head, overflow="fold")
    section = ""
    for one in found:
        name = one.section if one.section != section else ""
        table.add_row(name, escape(one.name), _value(one.first), _value(one.second))
        section = one.section
    return table


def _value(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        return value[:12]  # a hash; --json has all of it
    return f"{value:.6g}" if isinstance(value, float) else escape(str(value))
