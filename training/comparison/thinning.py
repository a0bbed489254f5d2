"""Less to train on: every slate of valid and test stays, so that results can be paired."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import xxhash

from contracts.slates import Slate
from training.sources.base import Source, Tally


class Thinned:
    """A source that keeps a share of its train slates, nested: a larger share holds a smaller.

    Args:
        share: above 0, up to 1.

    Raises:
        ValueError: a share outside.
    """

    def __init__(self, source: Source, share: float) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"share is {share}; allowed: above 0, up to 1")
        self._source, self._share = source, share
        self.name, self.spec, self.split_times = source.name, source.spec, source.split_times

    def settings(self) -> dict[str, Any]:
        return self._source.settings()

    def fingerprint(self) -> str:
        return self._source.fingerprint()

    def expected_lists(self) -> int | None:
        return self._source.expected_lists()

    def slates(self, tally: Tally) -> Iterator[Slate]:
        limit = int(self._share * 2**32)
        for slate in self._source.slates(tally):
            train = self.split_times.of(slate.time) == "train"
            if train and xxhash.xxh32_intdigest(slate.request_id.encode()) >= limit:
                tally.drop("train list left out, to train on a share")
                continue
            yield slate
