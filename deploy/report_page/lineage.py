"""From which release each arm's came."""

from __future__ import annotations

from deploy.analysis.status import Ancestor, ExperimentStatus
from deploy.report_page.markup import Html, joined, tag
from deploy.report_page.tables import chip, section


def lineage(status: ExperimentStatus) -> Html | None:
    """The releases, the youngest first; None where no store was given."""
    if not status.lineage:
        return None
    return section(
        "Release lineage", "lineage", tag("ol", *map(_entry, status.lineage), class_="lineage")
    )


def _entry(one: Ancestor) -> Html:
    came = f"refreshed from {one.parent}" if one.parent else "the first of its line"
    return tag(
        "li",
        tag(
            "p",
            tag("b", one.release),
            " ",
            joined(*(chip(f"arm {name}") for name in one.arms)),
            chip("champion", "good") if one.is_champion else None,
        ),
        tag("p", f"{came}, {one.created}", class_="note"),
    )
