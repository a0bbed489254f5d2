"""HTML and SVG from calls. What is no ``Html`` is text and is escaped: no name can be markup."""

from __future__ import annotations

from html import escape
from typing import Union


class Html(str):
    """Text that is markup already: made by ``tag`` and ``joined`` alone."""

    __slots__ = ()


Child = Union[str, Html, None]
#: Elements that have no end tag.
_VOID = frozenset({"meta", "link", "br"})


def tag(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Html:
    """``<name attributes>children</name>``.

    Attributes: underscores become hyphens and one at the end is dropped (``class_``); None and
    False leave an attribute out, True gives it without a value; numbers are written short.
    """
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        attribute = key.rstrip("_").replace("_", "-")
        words.append(attribute if value is True else f'{attribute}="{_value(value)}"')
    opening = f"<{' '.join(words)}>"
    return Html(opening if name in _VOID else f"{opening}{joined(*children)}</{name}>")


def joined(*children: Child) -> Html:
    """Children one after the other; strings are escaped, None is nothing."""
    return Html(
        "".join(
            child if isinstance(child, Html) else escape(child)
            for child in children
            if child is not None
        )
    )


def _value(value: str | float) -> str:
    return escape(value) if isinstance(value, str) else f"{value:.6g}"
