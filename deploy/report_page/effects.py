"""Which of a lift's two effects is shown, and how its reading is marked."""

from __future__ import annotations

from deploy.analysis.status import Effect, Lift
from deploy.report_page.numbers import Scale

#: Word and tone of ``Lift.improvement``.
READINGS = {"better": ("better", "good"), "worse": ("worse", "bad"), "undecided": ("undecided", "")}


def shown_effect(one: Lift) -> tuple[Effect | None, Scale]:
    """The relative effect, or the absolute one where there is no relative one.

    The reading is that of the absolute effect. Near zero the relative interval, which has the
    control's uncertainty in it too, may still hold zero; then the absolute one is shown, so that
    the page does not contradict itself.
    """
    relative, absolute = one.relative, one.absolute
    if relative is None:
        return absolute, "absolute"
    decided = one.improvement != "undecided"
    if absolute is not None and decided and relative.always_low <= 0 <= relative.always_high:
        return absolute, "absolute"
    return relative, "relative"
