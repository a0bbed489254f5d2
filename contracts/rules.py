"""Rules of the business for one list: pinned positions, and at most k of a group within w.

They hold inside the decode, whatever the model prefers. Where they cannot all hold, they give way
in this order: first the limit, position by position, then pins; an item never stands twice. What
had to give is reported with the list. Log-probabilities are those of the policy within the rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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


class Pin(Strict, kw_only=True, frozen=True):
    """An item that stands at a list position, from 0."""

    position: int
    item: str

    def __post_init__(self) -> None:
        if not 0 <= self.position < MAX_LIST:
            raise ValueError(f"position is {self.position}; allowed: 0 to {MAX_LIST - 1}")


class ListRules(Strict, kw_only=True, frozen=True):
    """The rules of one request; each position is pinned at most once."""

    pinned: tuple[Pin, ...] = ()
    limit: GroupLimit | None = None

    def __post_init__(self) -> None:
        if len({pin.position for pin in self.pinned}) < len(self.pinned):
            raise ValueError("pinned names a position twice; allowed: one item at each")


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


def without_rules(rows: int, list_size: int, padded: int) -> EncodedRules:
    """What the decoder takes where no request has rules."""
    return EncodedRules(
        pinned=np.full((rows, list_size), -1, np.int32),
        group=np.full((rows, padded), -1, np.int32),
        limit=np.zeros((rows, 2), np.int32),
    )


def encode_rules(requests: Sequence[RerankRequest], list_size: int, padded: int) -> EncodedRules:
    """The rules of requests with distinct candidates; pins beyond the list are left out."""
    encoded = without_rules(len(requests), list_size, padded)
    for row, request in enumerate(requests):
        rules = request.rules
        if rules.pinned:
            place_of = {one.item: index for index, one in enumerate(request.candidates)}
            for pin in rules.pinned:
                if pin.position < list_size:
                    encoded.pinned[row, pin.position] = place_of.get(pin.item, ABSENT)
        if rules.limit is not None:
            encoded.limit[row] = rules.limit.most, rules.limit.window
            values: dict[object, int] = {}
            for index, one in enumerate(request.candidates):
                value = one.features.get(rules.limit.feature)
                if value is not None:
                    encoded.group[row, index] = values.setdefault(value, len(values))
    return encoded


def order_within(
    rules: ListRules, items: Sequence[str], groups: Sequence[object], list_size: int
) -> list[int]:
    """The given order cut to n, within the rules: what is shown where there is no model to ask.

    The same precedence as in the decode, with "the earlier candidate" for "the better one".

    Args:
        items: distinct items of the candidates; groups: the value of the limit's feature of each,
            None for none.
    """
    length = min(list_size, len(items))
    place_of = {item: index for index, item in enumerate(items)}
    shown: dict[int, int] = {}
    for pin in sorted(rules.pinned, key=lambda pin: pin.position):
        index = place_of.get(pin.item)
        if pin.position < length and index is not None and index not in shown.values():
            shown[pin.position] = index
    free = [index for index in range(len(items)) if index not in shown.values()]
    for place in range(length):
        if place not in shown:
            excess = [_excess(rules.limit, groups, shown, place, index) for index in free]
            shown[place] = free.pop(excess.index(min(excess)))
    return [shown[place] for place in range(length)]


def _excess(
    limit: GroupLimit | None,
    groups: Sequence[object],
    shown: dict[int, int],
    place: int,
    index: int,
) -> int:
    """By how many items of its group the fullest window around ``place`` exceeds the limit."""
    if limit is None or groups[index] is None:
        return 0
    fullest = 0
    for start in range(place - limit.window + 1, place + 1):
        window = (shown.get(at) for at in range(start, start + limit.window))
        same = sum(other is not None and groups[other] == groups[index] for other in window)
        fullest = max(fullest, same + 1)
    return max(0, fullest - limit.most)
