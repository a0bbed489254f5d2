"""What the consumer is told. Times are in ms."""

from __future__ import annotations

from typing import Any

import msgspec

from contracts.events import DEAD_LETTERS, EXPOSURES, FEEDBACK
from contracts.reading import ContractError, Strict


class ConsumerSettings(Strict, kw_only=True, frozen=True):
    """Options of ``streaming/consume.py``; docs/streaming.md says when to change which."""

    brokers: tuple[str, ...]
    group: str = "gref"
    exposures: str = EXPOSURES
    feedback: str = FEEDBACK
    dead_letters: str = DEAD_LETTERS
    join_window: int = 600_000
    lateness: int = 60_000
    idle_after: int = 30_000
    max_skew: int = 300_000
    commit_interval: int = 10_000
    commit_rows: int = 20_000
    memory_bytes: int = 1 << 30
    give_up: int = 600_000
    broker_timeout: int = 60_000
    stop_timeout: int = 30_000
    session_timeout: int = 20_000
    poll_records: int = 2_000
    kafka: dict[str, Any] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("join_window", "commit_interval", "commit_rows", "memory_bytes"):
            if getattr(self, name) < 1:
                raise ContractError(f"{name.replace('_', '-')} must be above 0")
        if not self.group or "/" in self.group:
            raise ContractError(f"--group {self.group!r}; allowed: a name without /")
        if len({self.exposures, self.feedback, self.dead_letters}) != 3:
            raise ContractError("the three topics must differ")

    @property
    def topics(self) -> tuple[str, str]:
        """By side: exposures and feedback."""
        return self.exposures, self.feedback
