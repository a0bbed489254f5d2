"""Where a decoded list and a shown list meet: the ground of every metric.

Axes: B lists, N positions of the decoded list, L positions of the shown list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Alignment:
    """Decoded lists against the shown lists of the same requests.

    Attributes:
        decoded: bool [B, N], real positions of the decoded list.
        shown: bool [B, N], decoded items that were shown, so that their feedback is known.
        relevance: [B, N], logged feedback of the decoded items; 0 where not shown.
        exposed: bool [B, L], real positions of the shown list.
        feedback: [B, L], logged feedback of the shown items; 0 at padding.
        rank: int [B, L], position (from 0) of each shown item in the decoded list; N where the
            decoded list leaves it out, N + 1 at padding.
        place: [B, L], rank of each shown item among the shown ones alone (from 0). Items that the
            decoded list leaves out come after the others and share their mean place, since the
            policy says nothing of their order. Padding has a place beyond all.
    """

    decoded: Bools
    shown: Bools
    relevance: Float64
    exposed: Bools
    feedback: Float64
    rank: npt.NDArray[np.int64]
    place: Float64


def align(order: Ints, exposed: Ints, feedback: Floats) -> Alignment:
    """Align decoded lists with shown lists.

    Args:
        order: int [B, N], indices into the request's candidates in the order of the policy, -1
            at padding. It may hold candidates that were not shown, and leave shown ones out.
        exposed: int [B, L], indices of the candidates that were shown, -1 at padding.
        feedback: float [B, L], finite and >= 0, aligned with ``exposed``; ignored at padding.

    Raises:
        ValueError: shapes that do not fit, an index twice in a list, or impossible feedback.
    """
    if order.ndim != 2 or exposed.ndim != 2 or feedback.shape != exposed.shape:
        raise ValueError(
            f"order {order.shape}, exposed {exposed.shape} and feedback {feedback.shape}; "
            "allowed: [B, N], [B, L] and [B, L]"
        )
    if len(order) != len(exposed):
        raise ValueError(f"{len(order)} decoded lists for {len(exposed)} shown ones")
    _refuse_repeats("order", order)
    _refuse_repeats("exposed", exposed)
    decoded, valid = order >= 0, exposed >= 0
    known = np.where(valid, feedback, 0.0).astype(np.float64)
    if not (np.isfinite(known) & (known >= 0)).all():
        raise ValueError("feedback of shown items must be finite and >= 0")

    lists, width = order.shape
    candidates = int(max(order.max(initial=-1), exposed.max(initial=-1))) + 1
    # One column more takes up all padding.
    order_at = np.where(decoded, order, candidates)
    exposed_at = np.where(valid, exposed, candidates)

    feedback_of = np.full((lists, candidates + 1), np.nan)
    np.put_along_axis(feedback_of, exposed_at, known, axis=1)
    feedback_of[:, candidates] = np.nan
    found = np.take_along_axis(feedback_of, order_at, axis=1)

    rank_of = np.full((lists, candidates + 1), width)
    np.put_along_axis(rank_of, order_at, np.arange(width)[None], axis=1)
    rank_of[:, candidates] = width + 1
    rank = np.take_along_axis(rank_of, exposed_at, axis=1)

    return Alignment(
        decoded=decoded,
        shown=~np.isnan(found),
        relevance=np.nan_to_num(found),
        exposed=valid,
        feedback=known,
        rank=rank,
        place=_places(rank, width),
    )


def _places(rank: npt.NDArray[np.int64], width: int) -> Float64:
    """Place of each item among the shown ones; left-out items share their mean place."""
    by_rank = np.argsort(rank, axis=1, kind="stable")
    place = np.empty(rank.shape)
    np.put_along_axis(place, by_rank, np.arange(rank.shape[1], dtype=np.float64)[None], axis=1)
    left_out = rank == width
    number = left_out.sum(axis=1, keepdims=True)
    listed = (rank < width).sum(axis=1, keepdims=True)
    return np.where(left_out, listed + (number - 1) / 2, place)


def _refuse_repeats(name: str, index: Ints) -> None:
    ascending = np.sort(index, axis=1)
    repeated = ((ascending[:, 1:] == ascending[:, :-1]) & (ascending[:, 1:] >= 0)).any(axis=1)
    if repeated.any():
        row = int(np.flatnonzero(repeated)[0])
        raise ValueError(f"{name} of list {row} names a candidate twice: {index[row].tolist()}")
