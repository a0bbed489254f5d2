"""The truth about lists of simulated slates: the world's own exact expectation.

Axes: S slates, M candidates, n list positions.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.datasets import Dataset
from training.data.arrays import SlateArrays
from training.sources.world import World, WorldSettings

Orders = npt.NDArray[np.int64]


def world_of(dataset: Dataset) -> World:
    """The world that a simulated dataset was drawn from."""
    return World(msgspec.convert(dataset.settings["world"], WorldSettings))


def world_rows(world: World, slates: SlateArrays) -> tuple[Orders, Orders]:
    """User rows [S] and candidate item rows [S, M] of simulated slates."""
    items = np.full(slates.items.shape, -1, np.int64)
    real = slates.items != ""
    items[real] = world.item_rows(list(slates.items[real]))
    return world.user_rows(list(slates.user)), items


def true_feedback(
    world: World, kind: str, users: Orders, items: Orders, order: Orders
) -> npt.NDArray[np.float64]:
    """Exact expected feedback [S] of the lists ``order`` (candidate indices, -1 ends a list)."""
    shown = np.where(order >= 0, np.take_along_axis(items, order.clip(min=0), axis=1), -1)
    total: npt.NDArray[np.float64] = world.expected(kind, users, shown).sum(axis=1)
    return total
