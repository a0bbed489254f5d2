"""Which of a lift's two effects is shown, and how its reading is marked."""

from __future__ import annotations

from deploy.analysis.status import Effect, Lift
from deploy.report_page.numbers import Scale

#: Word and tone of ``Lift.improvement``.
READINGS = {"better": ("better", "good"), "worse": ("worse", "bad"), "undecided": ("undecided", "")}


def shown_effect(one: Lift) -> tuple[Effect | None, Scale]:
    """The relative effect, or the absolute one where there is no relative one."""
    return (one.relative, "relative") if one.relative is not None else (one.absolute, "absolute")
