"""Changing a few values of a YAML manifest in place, so that its comments and order stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

Step = str | tuple[str, str]
#: Where a value stands: ``("state",)``, or ``("arms", ("name", "treatment"), "weight")``: of the
#: list's elements the one whose name is treatment.
Place = tuple[Step, ...]


def edit(text: str, changes: Mapping[Place, str | float | None]) -> str:
    """The manifest's text with other values at some places.

    A key of the top level that is missing is added at the end. Where the text cannot be edited in
    place (flow style, anchors), it is written anew from its data: then comments are lost, values
    are not.
    """
    wanted = yaml.safe_load(text)
    for place, value in changes.items():
        _assign(wanted, place, value)
    edited = _edited(text, changes)
    try:
        if yaml.safe_load(edited) == wanted:
            return edited
    except yaml.YAMLError:
        pass
    return yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True)


def _edited(text: str, changes: Mapping[Place, str | float | None]) -> str:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    spans: list[tuple[int, int, str]] = []
    added = ""
    for place, value in changes.items():
        node = _find(root, place)
        if node is not None:
            start, end = node.start_mark.index, node.end_mark.index
            # An empty value (`started:`) has no width, and needs its space.
            spans.append((start, end, _scalar(value) if end > start else f" {_scalar(value)}"))
        elif len(place) == 1:
            added += f"{place[0]}: {_scalar(value)}\n"
    for start, end, new in sorted(spans, reverse=True):
        text = text[:start] + new + text[end:]
    if added and not text.endswith("\n"):
        text += "\n"
    return text + added


def _find(node: Any, place: Sequence[Step]) -> Any:
    for step in place:
        if isinstance(step, str):
            pairs = node.value if isinstance(node, yaml.MappingNode) else []
            node = next((value for key, value in pairs if key.value == step), None)
        else:
            elements = node.value if isinstance(node, yaml.SequenceNode) else []
            node = next((one for one in elements if _has(one, *step)), None)
        if node is None:
            return None
    return node


def _has(node: Any, key: str, value: str) -> bool:
    found = _find(node, (key,))
    return isinstance(found, yaml.ScalarNode) and found.value == value


def _assign(data: Any, place: Place, value: str | float | None) -> None:
    for step in place[:-1]:
        if isinstance(step, str):
            data = data[step]
        else:
            data = next(one for one in data if one[step[0]] == step[1])
    data[place[-1]] = value


def _scalar(value: str | float | None) -> str:
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n").removesuffix("\n...")
