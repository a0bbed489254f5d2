"""What a lane holds in memory: slates that are still open, and feedback that waits for its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from contracts.events import Exposure, FeedbackEvent, latest

#: What Python objects around a held event weigh beside its bytes; measured, rounded up.
_SLATE_BYTES, _ACT_BYTES = 2000, 1500


class Act:
    """A feedback event as it was read."""

    __slots__ = ("event", "key", "offset", "value")

    def __init__(self, offset: int, key: bytes | None, value: bytes, event: FeedbackEvent) -> None:
        self.offset = offset
        self.key = key
        self.value = value
        self.event = event

    @property
    def bytes(self) -> int:
        """About what it takes in memory."""
        return len(self.value) + _ACT_BYTES


class OpenSlate:
    """An exposure whose feedback is still awaited.

    Of the exposure only the bytes and what the join asks for are kept; decoded, candidates with
    their features take several times as much.
    """

    __slots__ = (
        "_counting",
        "_ids",
        "acts",
        "items",
        "key",
        "offset",
        "request_id",
        "time",
        "value",
    )

    def __init__(self, offset: int, key: bytes | None, value: bytes, exposure: Exposure) -> None:
        self.offset = offset
        self.key = key
        self.value = value
        self.request_id = exposure.request_id
        self.time = exposure.time
        self.items = tuple(exposure.candidates[index].item for index in exposure.exposed)
        self.acts: list[Act] = []
        self._ids: set[str] | None = None  # most slates get no feedback
        self._counting: dict[tuple[str, str], FeedbackEvent] | None = None

    @property
    def bytes(self) -> int:
        """About what it takes in memory, without its acts."""
        return len(self.value) + _SLATE_BYTES

    def take(self, act: Act) -> bool:
        """Count an act on a shown item; False where an act of its event_id has been taken."""
        event = act.event
        if self._ids is None or self._counting is None:
            self._ids, self._counting = set(), {}
        if event.event_id in self._ids:
            return False
        self._ids.add(event.event_id)
        self.acts.append(act)
        place = (event.item, event.kind)
        other = self._counting.get(place)
        self._counting[place] = event if other is None else latest(event, other)
        return True

    def counting(self) -> Iterable[FeedbackEvent]:
        """The acts that count: of each item and kind the latest. 0 of a binary kind takes back."""
        return () if self._counting is None else self._counting.values()


class Waiting:
    """Feedback that no open slate takes: its exposure may still come, or it is late."""

    def __init__(self) -> None:
        self._acts: dict[str, dict[int, Act]] = {}
        self.count = 0
        self.bytes = 0

    def add(self, act: Act) -> None:
        self._acts.setdefault(act.event.request_id, {})[act.offset] = act
        self.count += 1
        self.bytes += act.bytes

    def of(self, request_id: str) -> list[Act]:
        """The acts that wait for a request, in the order of their offsets."""
        return list(self._acts.get(request_id, {}).values())

    def remove(self, request_id: str, offset: int) -> Act | None:
        """Take an act out; None where it is not there any more."""
        acts = self._acts.get(request_id)
        act = acts.pop(offset, None) if acts else None
        if act is not None:
            self.count -= 1
            self.bytes -= act.bytes
            if not acts:
                del self._acts[request_id]
        return act

    def __iter__(self) -> Iterator[Act]:
        for acts in self._acts.values():
            yield from acts.values()
