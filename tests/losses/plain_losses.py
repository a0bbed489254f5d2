"""The losses of paper.md a second time, for one list at a time, in loops over plain numbers.

``logits[t][i]`` are the scores of all candidates by head i + 1 at h_t. Lists hold no padding here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations

Scores = Sequence[Sequence[Sequence[float]]]


def log_p(scores: Sequence[float], taken: Sequence[int], item: int) -> float:
    """Log-probability of ``item`` among the candidates that are not taken."""
    total = sum(math.exp(score) for j, score in enumerate(scores) if j not in taken)
    return scores[item] - math.log(total)


def next_items(logits: Scores, y: Sequence[int], heads: int) -> float:
    """Cross-entropy of every head at every step, for as far as the list goes."""
    terms = [
        -log_p(logits[t][i], y[: t + i], y[t + i])
        for t in range(len(y))
        for i in range(heads)
        if t + i < len(y)
    ]
    return sum(terms) / len(terms) if terms else 0.0


def ordering(logits: Scores, y: Sequence[int], gains: Sequence[float] | None, heads: int) -> float:
    """-log sigmoid of the margin, over all ordered pairs of permutations of every window."""
    terms = []
    for t in range(len(y)):
        window = list(range(t, min(t + heads, len(y))))
        scored = []
        for places in permutations(window):
            items = [y[place] for place in places]
            probability = sum(
                log_p(logits[t][i], [*y[:t], *items[:i]], item) for i, item in enumerate(items)
            )
            scored.append((_score(places, gains), probability))
        for better, high in scored:
            for worse, low in scored:
                if better > worse + 1e-6:
                    terms.append(math.log1p(math.exp(-(high - low))))
    return sum(terms) / len(terms) if terms else 0.0


def _score(places: Sequence[int], gains: Sequence[float] | None) -> float:
    if gains is not None and len({gains[place] for place in places}) > 1:
        return sum(gains[place] / math.log2(i + 2) for i, place in enumerate(places))
    return -sum(
        places[i] > places[j] for i in range(len(places)) for j in range(i + 1, len(places))
    )


def rerank_dpo(
    policy: tuple[float, float],
    reference: tuple[float, float],
    lengths: tuple[int, int],
    *,
    beta: float,
    smooth: float = 0.0,
    likelihood: str = "none",
    weight: float = 0.0,
    mean: bool = False,
) -> float:
    """Eq. 8 of one pair; each tuple is (chosen, rejected)."""
    size = lengths if mean else (1, 1)
    margin = beta * ((policy[0] - reference[0]) / size[0] - (policy[1] - reference[1]) / size[1])
    if likelihood == "dpop":
        margin -= beta * weight * max(0.0, (reference[0] - policy[0]) / size[0])
    right, wrong = (math.log1p(math.exp(-x)) for x in (margin, -margin))
    loss = (1 - smooth) * right + smooth * wrong
    if likelihood == "nll":
        loss -= weight * policy[0] / lengths[0]
    return loss
