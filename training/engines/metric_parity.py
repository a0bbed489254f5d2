"""Ranking-metric parity: do engines of a lower precision rank as well as the eager model?

Rounding may order near ties the other way. That is no loss in itself, so what lists are worth on
held-out requests is compared too: NDCG of what was shown and liked, over all lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from contracts.encoding import EncodedBatch
from contracts.releases import Gate
from training.data.arrays import SlateArrays
from training.engines.parity import Engines, answer
from training.evaluation.metrics import evaluate_orders

METRIC = "parity.metric.ndcg"
#: Largest difference of the mean NDCG; the noise of an evaluation is several times that.
LIMIT = 0.002


def metric_gate(
    eager: Engines, engines: Engines, requests: Sequence[EncodedBatch], slates: SlateArrays
) -> Gate:
    """Compare the NDCG of greedy lists.

    Args:
        requests: of the slates, in their order.
    """
    ndcg = [
        float(_ndcg(_greedy(one, requests), slates, eager.list_size)) for one in (eager, engines)
    ]
    gap = abs(ndcg[0] - ndcg[1])
    return Gate(
        name=METRIC,
        passed=gap <= LIMIT,
        value=gap,
        limit=LIMIT,
        detail=f"eager {ndcg[0]:.4f}, engines {ndcg[1]:.4f}, {len(slates.count)} lists",
    )


def _greedy(engines: Engines, requests: Iterable[EncodedBatch]) -> npt.NDArray[np.int64]:
    orders = [
        answer(engines, batch, 0.0, [0] * len(batch.count)).order_BN.numpy() for batch in requests
    ]
    return np.concatenate(orders).astype(np.int64)


def _ndcg(orders: npt.NDArray[np.int64], slates: SlateArrays, n: int) -> float:
    scores = evaluate_orders(orders, slates.exposed, slates.utility, ks=(n,))
    return float(scores[f"ndcg@{n}"].mean())
