"""Ranking metrics of decoded lists; docs/evaluation.md says when to believe which.

Every function gives one value a list (float64 [B]); the metric is their mean, or, where the
docstring says so, a weighted mean over the lists that are not NaN. Feedback is a relevance >= 0:
binary feedback as 0 and 1, continuous feedback scaled to about that range before it comes here.

Axes: B lists, N positions of the decoded list, L positions of the shown list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from training.evaluation.alignment import Alignment, Float64, Floats, Ints, align

Gain = Literal["exponential", "linear"]

#: 2^relevance - 1 beyond this says that unscaled feedback (seconds, say) came in.
MAX_RELEVANCE = 30.0


def ndcg(aligned: Alignment, k: int | None = None, gain: Gain = "exponential") -> Float64:
    """NDCG@k of the whole decoded list, as LibRerank computes it.

    The logged feedback is permuted into the policy's order; gain 2^rel - 1, discount
    1 / log2(i + 1) for i from 1. A decoded item that was not shown has gain 0, and the ideal is
    that of the shown items at the same cutoff: where m > n this is a lower bound, for what an
    item that nobody saw would have earned is not known. Lists without feedback score 0.

    Args:
        k: cutoff; None for the whole lists.
        gain: "linear" takes the relevance itself.
    """
    actual = _dcg(_gain(aligned.relevance, gain), k)
    return _ratio(actual, _ideal(aligned, k, gain))


def ndcg_shown(aligned: Alignment, k: int | None = None, gain: Gain = "exponential") -> Float64:
    """NDCG@k of the shown items alone, in the relative order in which the policy puts them.

    Decoded items that were not shown are passed over. Shown items that the decoded list leaves
    out follow the others in no known order: each of their places has their mean gain, which is
    the expectation over all their orders. Equal to ``ndcg`` where exactly the shown items are
    decoded. Says how well the policy orders what was shown, not how well it chooses.
    """
    gains = _gain(aligned.feedback, gain)
    by_place = np.argsort(aligned.place, axis=1, kind="stable")
    in_order = np.take_along_axis(gains, by_place, axis=1)
    listed = (aligned.rank < aligned.decoded.shape[1]).sum(axis=1, keepdims=True)
    length = aligned.exposed.sum(axis=1, keepdims=True)
    place = np.arange(gains.shape[1])[None]
    left_out = (place >= listed) & (place < length)
    mean_gain = (in_order * left_out).sum(axis=1, keepdims=True) / np.maximum(length - listed, 1)
    expected = np.where(left_out, mean_gain, in_order)
    return _ratio(_dcg(expected, k), _ideal(aligned, k, gain))


def average_precision(aligned: Alignment, k: int | None = None) -> Float64:
    """AP@k; an item is relevant if its feedback is above 0. Its mean over lists is MAP@k.

    AP@k = sum over relevant positions i <= k of precision@i, over min(k, relevant shown items).
    Decoded items that were not shown count as not relevant. Lists without feedback score 0.
    """
    hit = aligned.relevance[:, :k] > 0
    precision = np.cumsum(hit, axis=1) / np.arange(1, hit.shape[1] + 1)
    relevant = (aligned.feedback > 0).sum(axis=1)
    return _ratio((precision * hit).sum(axis=1), np.minimum(relevant, k) if k else relevant)


def list_auc(aligned: Alignment) -> Float64:
    """ROC AUC of each list over its shown items, by the policy's order; ties count one half.

    NaN where all shown items have feedback or none has. GAUC is the mean of the others weighted
    by impressions, ``impressions(aligned)``.
    """
    positive = (aligned.feedback > 0) & aligned.exposed
    positives = positive.sum(axis=1)
    pairs = positives * (aligned.exposed.sum(axis=1) - positives)
    before = (aligned.place * positive).sum(axis=1) - positives * (positives - 1) / 2
    auc: Float64 = np.where(pairs > 0, 1 - before / np.maximum(pairs, 1), np.nan)
    return auc


def impressions(aligned: Alignment) -> Float64:
    """Shown items of each list: GAUC's weights."""
    number: Float64 = aligned.exposed.sum(axis=1).astype(np.float64)
    return number


def unshown_share(aligned: Alignment) -> Float64:
    """Share of the decoded list that was not shown, whose feedback nobody knows; 0 if empty."""
    decoded = aligned.decoded.sum(axis=1)
    return _ratio(decoded - aligned.shown.sum(axis=1), decoded)


def position_score(aligned: Alignment) -> Float64:
    """Score [B, L] of each shown item for pooled AUC: minus its position in the decoded list.

    Items that the decoded list leaves out share the position after its end.
    """
    return -aligned.rank.astype(np.float64)


def evaluate_orders(
    order: Ints,
    exposed: Ints,
    feedback: Floats,
    ks: Sequence[int] = (5, 10),
    gain: Gain = "exponential",
) -> dict[str, Float64]:
    """Every metric that is a mean over lists, by name: float64 [B] each.

    Names: ``ndcg``, ``ndcg_with_feedback`` (NaN for lists without feedback, so that their mean is
    over the others), ``ndcg_shown``, ``map``, each whole and @k; ``gauc`` (NaN where undefined,
    weighted by impressions); ``unshown_share``. See ``align`` for the arguments and errors.
    """
    aligned = align(order, exposed, feedback)
    if any(k < 1 for k in ks):
        raise ValueError(f"cutoffs are {list(ks)}; allowed: 1 and more")
    with_feedback = aligned.feedback.max(axis=1, initial=0.0) > 0
    values: dict[str, Float64] = {}
    for k in (*ks, None):
        suffix = "" if k is None else f"@{k}"
        values[f"ndcg{suffix}"] = ndcg(aligned, k, gain)
        values[f"ndcg_with_feedback{suffix}"] = np.where(
            with_feedback, values[f"ndcg{suffix}"], np.nan
        )
        values[f"ndcg_shown{suffix}"] = ndcg_shown(aligned, k, gain)
        values[f"map{suffix}"] = average_precision(aligned, k)
    values["gauc"] = list_auc(aligned)
    values["unshown_share"] = unshown_share(aligned)
    return values


def given_order(count: Ints, size: int) -> npt.NDArray[np.int64]:
    """The order of the previous stage as decoded lists [B, size]: 0, 1, 2, ... then -1."""
    place = np.arange(size)[None]
    return np.where(place < count.reshape(-1, 1), place, -1)


def _gain(relevance: Float64, gain: Gain) -> Float64:
    if gain == "linear":
        return relevance
    if relevance.max(initial=0.0) > MAX_RELEVANCE:
        raise ValueError(
            f"feedback {relevance.max():g} would have a gain of 2^that; allowed: up to "
            f"{MAX_RELEVANCE:g}. Scale continuous feedback, or take the linear gain"
        )
    return np.exp2(relevance) - 1


def _dcg(gains: Float64, k: int | None) -> Float64:
    gains = gains[:, :k]
    total: Float64 = (gains / np.log2(np.arange(gains.shape[1]) + 2)).sum(axis=1)
    return total


def _ideal(aligned: Alignment, k: int | None, gain: Gain) -> Float64:
    descending = -np.sort(-aligned.feedback, axis=1)
    return _dcg(_gain(descending, gain), k)


def _ratio(numerator: npt.NDArray[np.number], denominator: npt.NDArray[np.number]) -> Float64:  # type: ignore[type-arg]
    """Quotient, and 0 where the denominator is 0."""
    safe = np.where(denominator > 0, denominator, 1)
    quotient: Float64 = np.where(denominator > 0, numerator / safe, 0.0)
    return quotient
