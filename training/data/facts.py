"""Facts of slates that a later batch is compared with: how often people do what, and where.

Axes: S slates, N list positions, K feedback kinds.
"""

from __future__ import annotations

import json

import numpy as np

from contracts.reading import Strict, convert
from training.data.arrays import SlateArrays

#: The key of a checkpoint's ``data`` under which the facts of its training slates travel.
FACTS = "facts"


class DataFacts(Strict, kw_only=True, frozen=True):
    """What was measured of a set of slates.

    Attributes:
        slates, users: how many.
        with_utility: slates with U above 0 somewhere.
        rates: kind -> share of shown items with that feedback.
        positions: share of all feedback of the utility's kind at each list position, from the
            first; they add up to 1 (empty where there is no feedback).
        saturated: share of slates of three items or more with U on every shown item.
        largest_user_share: share of all feedback of the utility's kind that one user gave.
        fallbacks: share of slates that show the given order because the release could not answer.
    """

    slates: int
    users: int
    with_utility: int
    rates: dict[str, float]
    positions: tuple[float, ...]
    saturated: float
    largest_user_share: float
    fallbacks: float = 0.0


def facts_of(slates: SlateArrays, fallbacks: float = 0.0) -> DataFacts:
    """Measure slates; at least one."""
    shown = slates.exposed >= 0
    items = shown.sum()
    given = (slates.feedback > 0) & shown[:, :, None]
    rates = given.sum(axis=(0, 1)) / max(1, items)
    liked = (slates.utility > 0) & shown
    by_position, total = liked.sum(axis=0), liked.sum()
    length = shown.sum(axis=1)
    _, user = np.unique(slates.user.astype(str), return_inverse=True)
    by_user = np.bincount(user, weights=liked.sum(axis=1))
    return DataFacts(
        slates=len(slates),
        users=len(by_user),
        with_utility=int(liked.any(axis=1).sum()),
        rates={one.kind: float(rate) for one, rate in zip(slates.spec.feedback, rates)},
        positions=tuple((by_position / total).tolist()) if total else (),
        saturated=float(((liked.sum(axis=1) == length) & (length >= 3)).mean()),
        largest_user_share=float(by_user.max() / total) if total else 0.0,
        fallbacks=fallbacks,
    )


def facts_text(facts: DataFacts) -> str:
    """Facts as the text that a checkpoint carries; ``facts_from_text`` reads it."""
    return json.dumps({name: getattr(facts, name) for name in facts.__struct_fields__})


def facts_from_text(text: str, where: str) -> DataFacts:
    """The inverse of ``facts_text``; raises ContractError that names ``where``."""
    return convert(json.loads(text), DataFacts, where)
