"""What every peer offers: settings with a space to search, ``fit``, and then ``rerank``.

Axes: B requests, n list positions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
from torch import Tensor

from contracts.features import FeatureSpec
from contracts.reading import Strict
from training.data.arrays import SlateArrays
from training.data.batch import Batch
from training.settings import OptimSettings, override

#: Called after every epoch with the scalars of that epoch: ``epoch`` (from 1), ``loss``, and the
#: held-out scores, of which ``held_out`` chooses the epoch (higher is better).
OnEpoch = Callable[..., None]


class PeerSettings(Strict, kw_only=True, frozen=True):
    """Settings of a peer. Subclasses add fields and say in ``SEARCH`` what is tried.

    Attributes:
        SEARCH: alternatives by dotted field; their product is the grid that trials are drawn from.
            Every grid that is not empty has at least 12 points, so that peers can be given the
            same number of trials.
        optim: of the shared loop (``fitting.py``).
    """

    SEARCH: ClassVar[dict[str, tuple[Any, ...]]] = {}

    optim: OptimSettings = OptimSettings(epochs=15, learning_rate=1e-3, patience=3)


class Fitted(Protocol):
    """A trained peer."""

    @property
    def parameters(self) -> int:
        """Trained numbers (of trees: leaves and thresholds)."""

    @property
    def epochs(self) -> int:
        """The epoch (or number of trees) that was chosen on held-out lists; 0 untrained."""

    def rerank(self, batch: Batch) -> Tensor:
        """Lists int64 [B, n] of candidate indices, n = list_size; -1 after the end where m < n.

        Looks at candidates and user alone, never at what was shown or at its feedback.
        """


class Peer(Protocol):
    """A system that Gen-Reranker is compared with."""

    @property
    def name(self) -> str: ...

    @property
    def paper(self) -> str:
        """Citation."""

    @property
    def settings_type(self) -> type[PeerSettings]: ...

    def fit(
        self,
        train: SlateArrays,
        valid: SlateArrays,
        spec: FeatureSpec,
        settings: Any,
        seed: int,
        on_epoch: OnEpoch,
    ) -> Fitted:
        """Train on logged lists; the epoch is chosen on ``valid``, by its logs alone.

        Args:
            settings: a ``settings_type``.
            seed: the same seed gives the same lists.
        """


SomeSettings = TypeVar("SomeSettings", bound=PeerSettings)


def trials(settings_type: type[SomeSettings], count: int, seed: int) -> list[SomeSettings]:
    """The settings to try: the defaults, then points of the grid drawn without repetition.

    Returns:
        ``count`` settings; fewer only where the grid is smaller.
    """
    start = settings_type()
    names = list(settings_type.SEARCH)
    points = [
        override(start, dict(zip(names, point)))
        for point in itertools.product(*settings_type.SEARCH.values())
    ]
    others = [point for point in points if point != start]
    order = np.random.default_rng(seed).permutation(len(others))
    return [start, *(others[index] for index in order[: max(0, count - 1)])]
