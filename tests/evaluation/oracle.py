"""Every metric again, one list at a time and by definition."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from hypothesis import strategies as st


@dataclass(frozen=True)
class List:
    """One list without padding: decoded and shown candidate indices, feedback of the shown."""

    order: list[int]
    exposed: list[int]
    feedback: list[float]

    @property
    def logged(self) -> dict[int, float]:
        return dict(zip(self.exposed, self.feedback))


@st.composite
def lists(draw: st.DrawFn, binary: bool = False) -> List:
    """Up to 6 candidates; the decoded list may miss shown items and hold others."""
    candidates = draw(st.integers(1, 6))
    order = draw(st.permutations(range(candidates)))[: draw(st.integers(0, candidates))]
    exposed = draw(st.permutations(range(candidates)))[: draw(st.integers(0, candidates))]
    value = st.sampled_from((0.0, 1.0)) if binary else st.sampled_from((0.0, 0.0, 0.3, 1.0, 2.0))
    return List(list(order), list(exposed), [draw(value) for _ in exposed])


def dcg(relevance: list[float], k: int) -> float:
    return sum((2**rel - 1) / math.log2(i + 1) for i, rel in enumerate(relevance[:k], start=1))


def ndcg(one: List, k: int) -> float:
    ideal = dcg(sorted(one.feedback, reverse=True), k)
    return dcg([one.logged.get(item, 0.0) for item in one.order], k) / ideal if ideal else 0.0


def ndcg_shown(one: List, k: int) -> float:
    """The mean over every order in which the left-out items may follow the others."""
    listed = [one.logged[item] for item in one.order if item in one.logged]
    left_out = [one.logged[item] for item in one.exposed if item not in one.order]
    ideal = dcg(sorted(one.feedback, reverse=True), k)
    orders = list(itertools.permutations(left_out))
    return sum(dcg(listed + list(rest), k) for rest in orders) / len(orders) / ideal if ideal else 0


def average_precision(one: List, k: int) -> float:
    relevant = sum(value > 0 for value in one.feedback)
    hits, total = 0, 0.0
    for i, item in enumerate(one.order[:k], start=1):
        if one.logged.get(item, 0.0) > 0:
            hits += 1
            total += hits / i
    return total / min(k, relevant) if relevant else 0.0


def auc(scores: list[float], labels: list[bool]) -> float:
    """Share of pairs of a positive and a negative that are ordered rightly."""
    positives = [s for s, label in zip(scores, labels) if label]
    negatives = [s for s, label in zip(scores, labels) if not label]
    if not positives or not negatives:
        return math.nan
    wins = sum((p > q) + (p == q) / 2 for p in positives for q in negatives)
    return wins / (len(positives) * len(negatives))


def position_scores(one: List, width: int) -> list[float]:
    return [
        -float(one.order.index(item)) if item in one.order else -float(width)
        for item in one.exposed
    ]


def unshown_share(one: List) -> float:
    if not one.order:
        return 0.0
    return sum(item not in one.logged for item in one.order) / len(one.order)
