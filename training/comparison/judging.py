"""The score on held-out logs by which trials are chosen; the truth and the test lists are unseen.

Where every candidate was shown, the log ranks lists: NDCG. Elsewhere a log cannot see a gain
(docs/evaluation.md), and an evaluator of the feedback judges, one for all systems, fitted on the
training logs. GReF's recipe learns from evaluators of the same kind, fitted apart from this one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from contracts.locking import one_at_a_time
from contracts.reading import stable_hash
from training.baselines.base import Fitted
from training.checkpoint import load_tensors, save_atomically
from training.comparison.cases import Case
from training.comparison.code_state import code_state
from training.comparison.system import Slates
from training.data.arrays import SlateArrays
from training.evaluation.metrics import evaluate_orders
from training.pairs.evaluator import Evaluator
from training.pairs.fit_evaluator import fit_evaluator
from training.settings import EvaluatorSettings

Orders = npt.NDArray[np.int64]

#: The judge's own seed: none of those that systems are trained with.
_SEED = 7919
JUDGE_CODE = ("training.pairs.fit_evaluator",)


def lists_of(fitted: Fitted, slates: SlateArrays, batch_size: int = 512) -> Orders:
    """Lists of all slates [S, n], -1 after the end."""
    orders = [fitted.rerank(batch).cpu().numpy() for batch in slates.batches(batch_size)]
    return np.concatenate(orders).astype(np.int64)


def held_out_score(orders: Orders, slates: Slates, case: Case) -> float:
    """The score of lists of the valid slates; higher is better."""
    valid = slates.judged
    if bool((valid.count <= (valid.exposed >= 0).sum(1)).all()):
        n = orders.shape[1]
        per_list = evaluate_orders(orders, valid.exposed, valid.utility, ks=(n,))
        return float(per_list[f"ndcg@{n}"].mean())
    judge = _judge(slates, case)
    values = [
        judge.value(batch, torch.from_numpy(orders[batch.row.numpy()]).unsqueeze(1))[:, 0]
        for batch in valid.batches(512)
    ]
    return float(torch.cat(values).mean())


def _judge(slates: Slates, case: Case) -> Evaluator:
    """The case's evaluator; fitted once and kept beside its slates."""
    settings = EvaluatorSettings()
    identity = stable_hash([case.identity(), settings, _SEED, code_state(JUDGE_CODE)])
    file = slates.folder.parent / f"{slates.folder.name}.judge.pt"
    with one_at_a_time(file.with_suffix(".lock")):
        return _kept_or_fitted(file, identity, slates, settings)


def _kept_or_fitted(
    file: Path, identity: str, slates: Slates, settings: EvaluatorSettings
) -> Evaluator:
    if file.exists() and (kept := load_tensors(file))["identity"] == identity:
        evaluator = Evaluator(slates.train.spec, settings)
        evaluator.load_state_dict(kept["weights"])
        return evaluator.eval().requires_grad_(False)
    cpu = torch.device("cpu")
    evaluator, _ = fit_evaluator(slates.train, slates.valid, settings, _SEED, cpu)
    save_atomically(file, {"identity": identity, "weights": evaluator.state_dict()})
    return evaluator
