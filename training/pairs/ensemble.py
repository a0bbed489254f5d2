"""Several evaluators as one: the mean of what they expect. Training only.

Fitted from different seeds, evaluators err apart, and a list that is searched for is one on which
an evaluator errs in its favour: the mean of a few is fooled less. None of them serves, so they
cost a request nothing.

Axes: B requests, L lists a request, N list positions, M candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from training.data.batch import Batch
from training.pairs.evaluator import Evaluator, list_values
from training.pairs.next_items import NextItems


class Ensemble(nn.Module):
    """The mean of its members' expected utilities; members share their settings."""

    def __init__(self, members: Sequence[Evaluator]) -> None:
        super().__init__()
        if not members:
            raise ValueError("an ensemble needs at least one evaluator")
        self.members = nn.ModuleList(members)
        self.binary = members[0].binary
        self.discounted = members[0].discounted

    def evaluators(self) -> list[Evaluator]:
        """The members, with their type."""
        return [member for member in self.members if isinstance(member, Evaluator)]

    @torch.no_grad()
    def expected(self, batch: Batch, lists_BLN: Tensor) -> Tensor:
        """Expected utility of each position [B, L, N]."""
        each = [member.expected(batch, lists_BLN) for member in self.evaluators()]
        return torch.stack(each).mean(0)

    def value(self, batch: Batch, lists_BLN: Tensor) -> Tensor:
        """Value of whole lists [B, L] (``evaluator.list_values``)."""
        return list_values(self.expected(batch, lists_BLN), lists_BLN, self.discounted)

    def growing(self, batch: Batch) -> GrowingLists:
        """Empty lists of a batch, to be grown item by item."""
        return GrowingLists(self, batch)


class GrowingLists:
    """A list for each request, and what the members expect of every candidate as its next item."""

    def __init__(self, ensemble: Ensemble, batch: Batch) -> None:
        self._binary = ensemble.binary
        self._views = [NextItems(member, batch) for member in ensemble.evaluators()]

    @torch.no_grad()
    def expected(self) -> Tensor:
        """Expected utility of each candidate at the next position [B, M]."""
        scores = [view.scores() for view in self._views]
        return torch.stack([one.sigmoid() if self._binary else one for one in scores]).mean(0)

    def follow(self, parent_B: Tensor) -> None:
        """Go on from other rows of the same requests, for a beam (``NextItems.follow``)."""
        for view in self._views:
            view.follow(parent_B)

    def take(self, item_B: Tensor) -> None:
        """Put an item at the position that was asked for last; -1 once a list has ended."""
        for view in self._views:
            view.take(item_B)
