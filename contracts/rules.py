"""Rules of the business for one list: pinned positions, and at most k of a group within w.

They hold inside the decode, whatever the model prefers. Where they cannot all hold, they give way
in this order: first the limit, position by position, then pins; an item never stands twice. What
had to give is reported with the list. Log-probabilities are those of the policy within the rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.features import MAX_LIST
from contracts.reading import Strict

if TYPE_CHECKING:
    from contracts.slates import RerankRequest

Int32 = npt.NDArray[np.int32]

#: PINNED of an item that is not among the candidates: asked for, and not to be had.
ABSENT = 1 << 20


class GroupLimit(Strict, kw_only=True, frozen=True):
    """Of any ``window`` neighbours in the list, at most ``most`` have one value of ``feature``.

    Attributes:
        feature: a feature of the candidates, in the feature spec or not; a candidate without a
            value belongs to no group and is never too many.
    """

    feature: str
    most: int = 1
    window: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.most <= MAX_LIST:
            raise ValueError(f"most is {self.most}; allowed: 1 to {MAX_LIST}")
        if not 2 <= self.window <= MAX_LIST:
            raise ValueError(f"window is {self.window}; allowed: 2 to {MAX_LIST}")


class ListRules(Strict, kw_only=True, frozen=True):
    """The rules of one request.

    Attributes:
        pinned: list position, from 0 -> the item that stands there.
    """

    pinned: dict[int, str] = msgspec.field(default_factory=dict)
    limit: GroupLimit | None = None

    def __post_init__(self) -> None:
        for place in self.pinned:
            if not 0 <= place < MAX_LIST:
                raise ValueError(f"pinned holds position {place}; allowed: 0 to {MAX_LIST - 1}")


@dataclass(frozen=True)
class EncodedRules:
    """Rules of a batch as the decoder takes them. B requests, N positions, M padded candidates.

    Attributes:
        pinned: int32 [B, N], a candidate's index, -1 where nothing is pinned.
        group: int32 [B, M], -1 for no group.
        limit: int32 [B, 2], k and w; w = 0 for no limit.
    """

    pinned: Int32
    group: Int32
    limit: Int32


def encode_rules(requests: Sequence[RerankRequest], list_size: int, padded: int) -> EncodedRules:
    """The rules of requests with distinct candidates; pins beyond the list are left out."""
    rows = len(requests)
    pinned = np.full((rows, list_size), -1, np.int32)
    group = np.full((rows, padded), -1, np.int32)
    limit = np.zeros((rows, 2), np.int32)
    for row, request in enumerate(requests):
        rules = request.rules
        if rules.pinned:
            place_of = {one.item: index for index, one in enumerate(request.candidates)}
            for place, item in rules.pinned.items():
                if place < list_size:
                    pinned[row, place] = place_of.get(item, ABSENT)
        if rules.limit is not None:
            limit[row] = rules.limit.most, rules.limit.window
            values: dict[object, int] = {}
            for index, one in enumerate(request.candidates):
                value = one.features.get(rules.limit.feature)
                if value is not None:
                    group[row, index] = values.setdefault(value, len(values))
    return EncodedRules(pinned, group, limit)
