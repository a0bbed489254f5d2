"""What a trained system is worth on the test lists, and what one request costs."""

from __future__ import annotations

import gc
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from contracts.datasets import read_dataset
from training.baselines.base import Fitted
from training.comparison.gref import GrefLists
from training.comparison.judging import Orders, lists_of
from training.comparison.store import Arrays, Measured
from training.comparison.system import Slates
from training.data.arrays import SlateArrays
from training.evaluation.against_baseline import Result, compare
from training.evaluation.alignment import align
from training.evaluation.metrics import evaluate_orders, given_order
from training.evaluation.truth import true_feedback, world_of, world_rows

#: Metrics of each list that are kept, so that systems can be paired; ``auc`` comes from places.
KEPT = ("ndcg@5", "ndcg@10", "ndcg_shown@10", "gauc")
#: Metrics of a stored row, beside the true ones.
SHOWN = (*KEPT, "auc", "map@10", "unshown_share")


@dataclass(frozen=True)
class Measurement:
    """Metrics with intervals, and those of each list, which the store keeps."""

    metrics: dict[str, Measured]
    lists: Arrays
    users: int


def measure(fitted: Fitted, slates: Slates, resamples: int = 1000) -> Measurement:
    """Decode the test slates from all candidates and compare with the given order."""
    return measure_lists(lists_of(fitted, slates.test), slates, resamples)


def measure_lists(order: Orders, slates: Slates, resamples: int = 1000) -> Measurement:
    """The same for lists that are there already [S, n]."""
    test = slates.test
    orders = {"given": given_order(test.count, order.shape[1]), "it": order}
    extra = _truth(orders, slates)
    found = compare(
        orders,
        test.exposed,
        test.utility,
        test.user,
        baseline="given",
        extra=extra,
        resamples=resamples,
    )
    own = [one for one in found.results if one.method == "it"]
    metrics = {
        one.metric: _measured(one)
        for one in own
        if one.metric in SHOWN or one.metric.startswith("true ")
    }
    per_list = evaluate_orders(order, test.exposed, test.utility)
    kept: Arrays = {name: per_list[name].astype(np.float32) for name in KEPT}
    kept |= {name: values["it"].astype(np.float32) for name, values in extra.items()}
    kept["place"] = align(order, test.exposed, test.utility).rank.astype(np.int16)
    return Measurement(metrics, kept, found.users)


def case_lists(test: SlateArrays) -> Arrays:
    """What the store keeps of the test lists themselves."""
    _, codes = np.unique(test.user.astype(str), return_inverse=True)
    shown = test.exposed >= 0
    with_feedback = np.where(shown, test.utility, 0.0) > 0
    return {"users": codes.astype(np.int32), "label": with_feedback, "shown": shown}


def _measured(one: Result) -> Measured:
    gain = one.difference
    return Measured(
        value=one.value.estimate,
        low=one.value.low,
        high=one.value.high,
        over_given=None if gain is None else (gain.estimate, gain.low, gain.high),
    )


def _truth(orders: dict[str, Orders], slates: Slates) -> dict[str, dict[str, np.ndarray]]:
    """Exact expectations of a simulated world's kinds; nothing for real logs."""
    dataset = read_dataset(slates.folder)[0]
    if dataset.source != "simulator":
        return {}
    world = world_of(dataset)
    users, items = world_rows(world, slates.test)
    return {
        f"true {kind}": {
            name: true_feedback(world, kind, users, items, order) for name, order in orders.items()
        }
        for kind in ("click", "watch_time")
    }


def latency(
    fitted: Fitted, reference: GrefLists, slates: SlateArrays, rounds: int = 24
) -> tuple[float, float]:
    """Median CPU milliseconds of one request, and the median ratio to the reference, by turns.

    Eager PyTorch on one thread: for ratios. What serves is measured by benchmarks/peers.py.
    """
    times: dict[str, list[float]] = {"it": [], "reference": []}
    calls = {"it": fitted, "reference": reference}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for number in range(-4, rounds):
            batch = slates.batch(np.array([abs(number) % len(slates)]))
            for name in sorted(calls, reverse=bool(number % 2)):
                started = time.process_time()
                calls[name].rerank(batch)
                if number >= 0:
                    times[name].append(1e3 * (time.process_time() - started))
    finally:
        if collecting:
            gc.enable()
    ratios = [a / max(b, 1e-6) for a, b in zip(times["it"], times["reference"])]
    return float(np.median(times["it"])), float(np.median(ratios))


def machine() -> dict[str, str]:
    """What the times depend on."""
    gpu = torch.cuda.is_available()
    return {
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "cpu": _cpu(),
        "cores": str(os.cpu_count()),
        "device": torch.cuda.get_device_name() if gpu else "cpu",
    }


def _cpu() -> str:
    """The processor's model where the system tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
