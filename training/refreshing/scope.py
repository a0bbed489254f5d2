"""The exact input of a refresh: which versions of which table, on which champion, and its name.

The same input has the same identity; by it a refresh is found again after a crash, and a second
run of the same does nothing.
"""

from __future__ import annotations

from typing import Any

from contracts.reading import ContractError, Strict, stable_hash
from contracts.releases import DataVersion
from training.refreshing.champion import Champion
from training.refreshing.settings import RefreshSettings
from training.sources.feedback_table import FeedbackTable
from training.sources.table_slates import SOURCE


class Scope(Strict, kw_only=True, frozen=True):
    """The versions of a table that a refresh reads, both ends included."""

    table: str
    first: int
    last: int

    def data_version(self) -> DataVersion:
        """How a manifest names it; ``starts_after`` reads it back."""
        return DataVersion(
            dataset=f"{SOURCE}:{self.table}",
            fingerprint=stable_hash(self),
            first_version=self.first,
            last_version=self.last,
        )


def scope_of(
    champion: Champion, table: FeedbackTable, since: int | None, until: int | None
) -> Scope | None:
    """The rows added since the champion's data ended; None where there are none.

    The end is the newest version that added rows: later versions that did not (compaction, the
    consumer's bare positions) are not another input.

    Args:
        since: read the versions after this one, whatever the champion has seen.
        until: read no version after this one.

    Raises:
        ContractError: a version that the table does not have, or a log that is cut short.
    """
    for option, version in (("--since-version", since), ("--until-version", until)):
        if version is not None and not 0 <= version <= table.version:
            raise ContractError(
                f"{option} {version}; {table.uri} has versions 0 to {table.version}"
            )
    first = starts_after(champion, table) + 1 if since is None else since + 1
    last = table.newest_with_rows(first, table.version if until is None else until)
    return None if last is None else Scope(table=table.id, first=first, last=last)


def starts_after(champion: Champion, table: FeedbackTable) -> int:
    """The last version that the champion was trained on; -1 where it has not seen this table."""
    data = champion.manifest.data
    seen = data.dataset == f"{SOURCE}:{table.id}" and data.last_version is not None
    return data.last_version if seen and data.last_version is not None else -1


def identity_of(champion: Champion, scope: Scope, settings: RefreshSettings) -> str:
    """A hash of all that a refresh's outcome depends on."""
    content: list[Any] = [champion.name, champion.weights_sha256, scope, settings]
    return stable_hash(content)
