"""Clients as contexts: closed at the end, whatever happened between."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

_Own = TypeVar("_Own", bound="Closing")
_AsyncOwn = TypeVar("_AsyncOwn", bound="AsyncClosing")


class Closing(ABC):
    """What has a ``close`` is a context."""

    @abstractmethod
    def close(self) -> None:
        """Let go of connections and threads."""

    def __enter__(self: _Own) -> _Own:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class AsyncClosing(ABC):
    """The same for asyncio."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of connections and threads."""

    async def __aenter__(self: _AsyncOwn) -> _AsyncOwn:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()
