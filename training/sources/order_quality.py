"""How good the given order is, and the order of exposure: measured while slates stream by."""

from __future__ import annotations

import math
from array import array

import numpy as np

from contracts.slates import Slate
from training.sources.initial_ranker import area_under_curve


class OrderQuality:
    """NDCG of whole lists (binary gain, discount log2(i + 1)), and the AUC of the scores."""

    def __init__(self) -> None:
        self._given, self._exposed = array("d"), array("d")
        self._scores, self._labels = array("d"), array("d")

    def add(self, slate: Slate, utility: str) -> None:
        """Take in a slate; one without feedback of the kind ``utility`` has no NDCG."""
        gains = np.zeros(len(slate.exposed))
        for one in slate.feedback:
            if one.kind == utility:
                gains[one.position] = float(one.value > 0)
        for position, index in enumerate(slate.exposed):
            score = slate.candidates[index].score
            if score is not None:
                self._scores.append(score)
                self._labels.append(gains[position])
        if gains.any():
            self._exposed.append(ndcg(gains))
            self._given.append(ndcg(gains[np.argsort(slate.exposed)]))

    def facts(self, split: str) -> dict[str, float]:
        """Means by name; empty where nothing could be measured."""
        facts = {}
        if self._given:
            facts[f"{split}/ndcg/given_order"] = float(np.mean(self._given))
            facts[f"{split}/ndcg/exposure_order"] = float(np.mean(self._exposed))
        area = area_under_curve(np.array(self._scores), np.array(self._labels))
        if not math.isnan(area):
            facts[f"{split}/auc/score"] = area
        return facts


def ndcg(gains: np.ndarray) -> float:
    """NDCG of binary gains [n] in the order of a list; at least one gain."""
    discount = 1 / np.log2(np.arange(2, len(gains) + 2))
    return float((gains * discount).sum() / discount[: int(gains.sum())].sum())
