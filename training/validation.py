"""Held-out scores of a policy while it trains: what decides the epoch, and what warns.

Axes: S slates, B batch, N list positions, M candidates.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from training.data.arrays import SlateArrays
from training.decoding.run import decode_slates
from training.evaluation.metrics import evaluate_orders, given_order
from training.losses.likelihood import chosen_before, list_log_probs
from training.model.gen_reranker import GenReranker
from training.objectives import mass_on_unshown
from training.pairs.evaluator import Evaluator


class Validation:
    """Decodes held-out requests from all their candidates and scores the lists.

    Scores: ``ndcg`` and ``ndcg_shown`` (training/evaluation/metrics.py), ``logp_exposed`` (nats a
    list), ``mass_unshown`` (probability of candidates that were not shown), ``agreement/head_i``
    (share of the items of head i that head 1 would have chosen there too), ``duplicates`` (share
    of lists with an item twice), ``moved`` (share of positions that differ from the given order),
    and with a judge ``value`` (expected utility of the list), ``value_gain`` (over the given
    order) and ``value_se`` (the gain's standard error over lists). ``further`` scores of the
    decoded lists are added.
    """

    def __init__(
        self,
        model: GenReranker,
        slates: SlateArrays,
        device: torch.device,
        judge: Evaluator | None = None,
        further: Callable[[np.ndarray], dict[str, float]] | None = None,
    ) -> None:
        self.model = model
        self.slates = slates
        self.device = device
        self.judge = judge
        self.further = further
        self.list_size = min(slates.spec.list_size, int(slates.count.max()))
        self.given = given_order(slates.count, self.list_size)
        self.given_value = None if judge is None else self._value(self.given)

    def __call__(self) -> dict[str, float]:
        was_training = self.model.training
        self.model.eval()
        orders = decode_slates(self.model, self.slates, self.list_size, self.device)
        # The metrics refuse a list with an item twice; here it counts as an empty one, so that
        # the alarm names the fault.
        broken = np.array([_has_twice(order) for order in orders])
        per_list = evaluate_orders(
            np.where(broken[:, None], -1, orders),
            self.slates.exposed,
            self.slates.utility,
            ks=(self.list_size,),
        )
        n = self.list_size
        scores = {
            "ndcg": float(per_list[f"ndcg@{n}"].mean()),
            "ndcg_shown": float(per_list[f"ndcg_shown@{n}"].mean()),
            "moved": float((orders != self.given).mean()),
            "duplicates": float(broken.mean()),
        }
        scores |= self._likelihood(orders)
        if self.given_value is not None:
            value = self._value(orders)
            scores["value"] = float(value.mean())
            gain = value - self.given_value
            scores["value_gain"] = float(gain.mean())
            scores["value_se"] = float(gain.std() / max(len(gain) - 1, 1) ** 0.5)
        if self.further is not None:
            scores |= self.further(np.where(broken[:, None], -1, orders))
        self.model.train(was_training)
        return scores

    @torch.inference_mode()
    def _likelihood(self, orders: np.ndarray) -> dict[str, float]:
        heads = self.model.settings.heads
        agreed, seen = np.zeros(heads), np.zeros(heads)
        log_p, mass, count = 0.0, 0.0, 0
        for batch in self.slates.batches(512, self.device):
            z, prior = self.model.encode(batch)
            logits = self.model.block_logits(z, prior, batch.exposed)
            log_p += float(list_log_probs(logits, batch.exposed).sum())
            mass += float(mass_on_unshown(logits, batch.exposed, batch.exposed)) * batch.size
            count += batch.size
            lists = torch.from_numpy(orders[batch.row.cpu().numpy()]).to(self.device)
            before = chosen_before(lists, batch.candidates)[:, :-1]
            head_1 = self.model.block_logits(z, prior, lists, block=1)
            same = head_1.masked_fill(before, -1e9).argmax(-1) == lists
            valid = lists >= 0
            for head in range(heads):
                agreed[head] += float((same & valid)[:, head::heads].sum())
                seen[head] += float(valid[:, head::heads].sum())
        scores = {"logp_exposed": log_p / count, "mass_unshown": mass / count}
        for head in range(1, heads):
            if seen[head]:
                scores[f"agreement/head_{head + 1}"] = float(agreed[head] / seen[head])
        return scores

    def _value(self, orders: np.ndarray) -> np.ndarray:
        assert self.judge is not None
        values = []
        for batch in self.slates.batches(512, self.device):
            lists = torch.from_numpy(orders[batch.row.cpu().numpy()]).to(self.device)
            values.append(self.judge.value(batch, lists.unsqueeze(1))[:, 0].cpu().numpy())
        return np.concatenate(values)


def _has_twice(order: np.ndarray) -> bool:
    real = order[order >= 0]
    return len(set(real.tolist())) < len(real)
