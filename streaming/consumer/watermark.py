"""How far event time has come in a lane: what a slate must wait for, and for how long.

A lane has two inputs, exposures and feedback. The clock is the least of what the two have reached,
so that neither runs ahead of the other. An input that was read to its end reaches as far as the
other had come *before* that end was asked for: what is written to it later was sent later than
that. Where both are read to their end, the clock goes on with the wall, so that the last slates
close on quiet traffic. All times are in ms.
"""

from __future__ import annotations

EXPOSURE, FEEDBACK = 0, 1


class Watermark:
    """The watermark of one lane: the clock less the lateness; it never goes back.

    Attributes:
        value: events earlier than this are late.
        reached: event time that each input has come to.
    """

    __slots__ = ("_base", "_base_wall", "_greatest", "_lateness", "reached", "value")

    def __init__(self, lateness: int, value: int = 0, wall: int = 0) -> None:
        """Begin, or go on from what a commit recorded: its watermark and its wall time."""
        self.value = value
        self.reached = [0, 0]
        self._lateness = lateness
        self._greatest = [0, 0]
        # The clock at the last arrival, and when that was on the wall.
        self._base, self._base_wall = (value + lateness if value else 0), wall

    def seen(self, side: int, time: int, now: int) -> None:
        """An input has events up to ``time``; a clock that runs ahead of the wall's does not."""
        time = min(time, now)
        if time > self._greatest[side]:
            self._greatest[side] = time
            self.reached[side] = max(self.reached[side], time)
        self._base, self._base_wall = max(self._base, time), now

    def replayed(self, side: int, time: int) -> None:
        """As ``seen``, of events that had come before the commit from which the lane goes on."""
        time = min(time, self._base_wall)
        self._greatest[side] = max(self._greatest[side], time)
        self.reached[side] = max(self.reached[side], time)
        self._base = max(self._base, time)

    def ended(self, side: int) -> None:
        """An input is read to its end, as asked after all was handled that ``seen`` told of."""
        self.reached[side] = max(self.reached[side], *self._greatest)

    def quiet(self, now: int) -> None:
        """Both inputs are read to their end at the wall time ``now``."""
        if self._base:
            self._raise(self._base + max(0, now - self._base_wall) - self._lateness)

    def advance(self) -> int:
        """Take what was reached into account; returns the watermark."""
        self._raise(min(self.reached) - self._lateness)
        return self.value

    def _raise(self, value: int) -> None:
        self.value = max(self.value, value)
