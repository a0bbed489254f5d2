"""Which of a lift's two effects is told, in words and on the page."""

from __future__ import annotations

from deploy.analysis.status import Effect, Lift, Scale


def shown_effect(one: Lift) -> tuple[Effect | None, Scale]:
    """The relative effect, or the absolute one where there is no relative one.

    The reading is that of the absolute effect. Near zero the relative interval, which has the
    control's uncertainty in it too, may still hold zero; then the absolute one is told, so that
    words and reading do not contradict one another.
    """
    relative, absolute = one.relative, one.absolute
    if relative is None:
        return absolute, "absolute"
    decided = one.improvement != "undecided"
    if absolute is not None and decided and relative.always_low <= 0 <= relative.always_high:
        return absolute, "absolute"
    return relative, "relative"
