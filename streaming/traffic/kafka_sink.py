"""Where traffic goes: events by the producer that ranking servers use, and broken messages raw."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from kafka import KafkaProducer
from kafka.errors import KafkaError

from contracts.events import Event
from streaming.producer import EventProducer

FLUSH_S = 60.0


class KafkaSink:
    """Sends to a broker. As a context it is closed in any case."""

    def __init__(self, brokers: str, spool: Path) -> None:
        """Connect; ``spool`` keeps events that the broker does not take yet.

        Raises:
            OSError: there is no broker to begin with. A ranking server would go on; a simulation
                without one is a mistake.
        """
        try:
            # The events' own producer checks what it sends, and these are to be sent unchecked.
            self._raw = KafkaProducer(bootstrap_servers=brokers.split(","), acks="all")
        except KafkaError as error:
            raise ConnectionError(f"no broker at {brokers}: {error}") from error
        self._events = EventProducer(brokers, spool)
        self._lost = 0

    def send(self, event: Event) -> None:
        """Send an event; never blocks."""
        if not self._events.send(event):
            self._lost += 1

    def send_raw(self, topic: str, key: str, raw: bytes) -> None:
        """Send bytes that are no event."""
        self._raw.send(topic, key=key.encode(), value=raw)

    def finish(self) -> str:
        """Wait until everything is sent; what is wrong, or "" where nothing is."""
        self._raw.flush(FLUSH_S)
        waiting = not self._events.flush(FLUSH_S)
        trouble = [f"{self._lost} events were lost"] if self._lost else []
        if waiting:
            trouble.append("the broker has not taken all events; the rest waits in the spool")
        return "; ".join(trouble)

    def __enter__(self) -> KafkaSink:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._raw.close(1.0)
        self._events.close()
