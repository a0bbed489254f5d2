"""The common shape of data sources: each turns its own format into slates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from contracts.datasets import SplitTimes
from contracts.features import FeatureSpec
from contracts.slates import Slate


class SourceError(ValueError):
    """Input that a source cannot use: a missing file or column, or a wrong order of rows."""


class Tally:
    """Counts, while slates stream by, of what was kept, what was dropped and why.

    Attributes:
        kept, dropped: number of rows by kind and by reason.
        facts: other measurements, by name.
        stage: called with what is being done, before work that takes a while.
    """

    def __init__(self, stage: Callable[[str], None] = lambda _: None) -> None:
        self.stage = stage
        self.kept: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.facts: dict[str, float] = {}

    def keep(self, what: str, count: int = 1) -> None:
        if count:
            self.kept[what] += int(count)

    def drop(self, reason: str, count: int = 1) -> None:
        if count:
            self.dropped[reason] += int(count)


class Source(Protocol):
    """A data source.

    Attributes:
        name: how it is called in dataset.json.
        spec: the feature spec as a draft: dense features are not standardised yet, and an empty
            vocabulary is filled from the training slice by whoever prepares the dataset.
        split_times: where valid and test begin.
    """

    name: str
    spec: FeatureSpec
    split_times: SplitTimes

    def settings(self) -> dict[str, Any]:
        """The typed settings, as plain data."""
        ...

    def fingerprint(self) -> str:
        """SHA-256 over the input files, or over the settings where there are none."""
        ...

    def expected_lists(self) -> int | None:
        """How many slates will come, for a progress bar; None where it is not known."""
        ...

    def slates(self, tally: Tally) -> Iterator[Slate]:
        """All slates, in bounded memory; ``tally`` is complete when the iterator ends.

        Raises:
            SourceError: the input cannot be used.
        """
        ...
