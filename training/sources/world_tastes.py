"""What the users of a world like, and how that moves: drift.

A segment likes its categories in some measure, and its users scatter round what it likes. With
drift d, from 0 to 1, each segment's measure is ``(1 - d) * first + d * later``: at 1 the segments
like newly drawn categories. Users keep their segment and their own part of the taste, so that
what moves is a rule between two features, segment and category: a model that goes on learning
can follow it, one that does not is wrong.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from training.sources.world_settings import WorldSettings

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Tastes:
    """Segments and tastes of a world's users, at any drift.

    Attributes:
        segment: each user's segment [U]; activity: how active each user is [U].
    """

    def __init__(self, settings: WorldSettings, centres: Floats) -> None:
        """Draw them; ``centres`` are the categories' unit centres [C, D]."""
        s = settings
        rng = np.random.default_rng([s.seed, 1])
        # About three categories in different measure: a rule that features can show.
        likes = np.full(s.categories, 3 / s.categories)
        self._first: Floats = rng.dirichlet(likes, size=s.segments)
        self._jitter: Floats = 1e-6 * rng.normal(size=(s.segments, s.latent))
        self.segment: Ints = rng.integers(s.segments, size=s.users)
        self._own: Floats = s.taste_spread * unit(rng.normal(size=(s.users, s.latent)))
        self.activity: Floats = rng.normal(size=s.users)
        # From a stream of its own: what was drawn above does not depend on there being a drift.
        self._later: Floats = np.random.default_rng([s.seed, 2]).dirichlet(likes, size=s.segments)
        self._centres = centres

    def at(self, drift: float) -> Floats:
        """Unit taste vectors of all users [U, D] at a drift from 0 to 1."""
        likes = (1 - drift) * self._first + drift * self._later
        segments = unit(likes @ self._centres + self._jitter)
        return unit(segments[self.segment] + self._own)


def unit(vectors: Floats) -> Floats:
    """Vectors [..., D] at length 1."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))
