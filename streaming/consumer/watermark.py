"""How far event time has come in a lane: what a slate must wait for, and for how long.

A lane has two inputs, exposures and feedback. The clock is the least of what the two have reached,
so that neither runs ahead of the other. An input that has been read to its end for a while (it is
idle) reaches as far as the other had come *before* that end was asked for: what is written to it
later was sent later than that. The while is for what is on its way: after an outage one topic's
events can come back seconds before the other's, and a broker that has just been started again may
say that a topic ends earlier than it does. Where both inputs are idle, the clock goes on with the
wall, so that the last slates close on quiet traffic. All times are in ms.
"""

from __future__ import annotations

EXPOSURE, FEEDBACK = 0, 1


class Watermark:
    """The watermark of one lane: the clock less the lateness; it never goes back.

    Attributes:
        value: events earlier than this are late.
        reached: event time that each input has come to.
    """

    __slots__ = (
        *("_base", "_base_wall", "_ended_since", "_greatest", "_idle_after", "_lateness"),
        *("reached", "value"),
    )

    def __init__(self, lateness: int, value: int = 0, wall: int = 0, *, idle_after: int) -> None:
        """Begin, or go on from what a commit recorded: its watermark and its wall time.

        ``idle_after`` is how long an input must be at its end before it is idle.
        """
        self.value = value
        self.reached = [0, 0]
        self._lateness = lateness
        self._greatest = [0, 0]
        self._idle_after = idle_after
        # When each input was first found at its end, with nothing new since.
        self._ended_since: list[int | None] = [None, None]
        # The clock at the last arrival, and when that was on the wall.
        self._base, self._base_wall = (value + lateness if value else 0), wall

    def seen(self, side: int, time: int, now: int) -> None:
        """An input has events up to ``time``; a clock that runs ahead of the wall's does not."""
        time = min(time, now)
        self._ended_since[side] = None
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

    def ended(self, side: int, now: int) -> None:
        """An input is read to its end, as asked after all was handled that ``seen`` told of."""
        if self._ended_since[side] is None:
            self._ended_since[side] = now
        if self._idle(side, now):
            self.reached[side] = max(self.reached[side], *self._greatest)

    def not_ended(self, side: int) -> None:
        """There is more to read of an input, or nobody can say whether there is."""
        self._ended_since[side] = None

    def quiet(self, now: int) -> None:
        """Let the clock go on with the wall, if both inputs are idle at the wall time ``now``."""
        if self._base and all(self._idle(side, now) for side in (EXPOSURE, FEEDBACK)):
            self._raise(self._base + max(0, now - self._base_wall) - self._lateness)

    def advance(self) -> int:
        """Take what was reached into account; returns the watermark."""
        self._raise(min(self.reached) - self._lateness)
        return self.value

    def _idle(self, side: int, now: int) -> bool:
        since = self._ended_since[side]
        return since is not None and now - since >= self._idle_after

    def _raise(self, value: int) -> None:
        self.value = max(self.value, value)
