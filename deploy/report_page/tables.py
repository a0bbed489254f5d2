"""Tables that a phone shows as one card for each row, and the small marks within them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from deploy.report_page.markup import Child, Html, tag

#: Word and tone of ``Lift.improvement``.
READINGS = {"better": ("better", "good"), "worse": ("worse", "bad"), "undecided": ("undecided", "")}
#: Marks beside the colour, which not everybody sees.
_MARKS = {"good": "\N{CHECK MARK}", "bad": "\N{MULTIPLICATION X}", "warn": "!", "": ""}


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[Child]]) -> Html:
    """A table; the first cell of a row names it. ``columns`` are said again beside each cell on
    a narrow screen. A column whose name begins with ">" holds numbers.
    """
    names = [column.lstrip(">") for column in columns]
    kinds = ["number" if column.startswith(">") else None for column in columns]
    head = (tag("th", name, scope="col", class_=kind) for name, kind in zip(names, kinds))
    body = (
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            *(
                tag("td", tag("span", cell, class_="cell"), data_label=name, class_=kind)
                for cell, name, kind in zip(row[1:], names[1:], kinds[1:])
            ),
        )
        for row in rows
    )
    whole = tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", *head)),
        tag("tbody", *body),
    )
    return tag("div", whole, class_="scroll")


def chip(text: str, tone: str = "") -> Html:
    """A word with a colour and a mark; ``tone`` is good, bad, warn, or nothing."""
    mark = _MARKS[tone]
    return tag(
        "span",
        tag("span", mark, class_="mark", aria_hidden="true") if mark else None,
        text,
        class_=f"chip {tone}".strip(),
    )


def note(*children: Child) -> Html:
    """A sentence in small letters."""
    return tag("p", *children, class_="note")


def section(title: str, key: str, *children: Child) -> Html:
    """A part of the page under a heading of its own."""
    return tag("section", tag("h2", title, id=key), *children, aria_labelledby=key, class_="card")
