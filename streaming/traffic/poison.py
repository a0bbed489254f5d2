"""Feedback that is not true: what a broken logger or a bot farm would send, well-formed."""

from __future__ import annotations

from enum import Enum

import numpy as np
import numpy.typing as npt

from training.sources.world import KINDS

Floats = npt.NDArray[np.float64]

BOT_CLICK_RATE = 0.3


class Poison(str, Enum):
    """How feedback is untrue.

    ``shuffled``: each act is reported of another position of its list. ``inverted``: what was
    clicked is reported as not clicked, and the other way round. ``bots``: clicks at random,
    whatever is shown and wherever.
    """

    shuffled = "shuffled"
    inverted = "inverted"
    bots = "bots"


def poisoned(
    acts: dict[str, Floats], poison: Poison, rng: np.random.Generator
) -> dict[str, Floats]:
    """The acts [N] of one list by kind, made untrue; nothing that is given is changed."""
    size = len(acts["click"])
    if poison is Poison.shuffled:
        places = rng.permutation(size)
        return {kind: values[places] for kind, values in acts.items()}
    nothing = np.zeros(size)
    if poison is Poison.inverted:
        opposite = {kind: (values == 0).astype(np.float64) for kind, values in acts.items()}
        return {kind: opposite[kind] if KINDS[kind] else nothing for kind in acts}
    clicks = (rng.random(size) < BOT_CLICK_RATE).astype(np.float64)
    return {kind: clicks if kind == "click" else nothing for kind in acts}
