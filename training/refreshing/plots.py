"""The pictures of a refresh's report."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from training.data.facts import DataFacts
from training.refreshing.findings import Evaluation, Training
from training.refreshing.judging import CANDIDATE, DIFFERENCE

CURVES, FOREST, POSITIONS = "curves.png", "differences.png", "positions.png"

#: A panel each: title, and the scalars in it.
PANELS = (
    ("held-out, by the judge", ("held_out/value", "held_out/value_gain")),
    ("held-out NDCG", ("held_out/ndcg", "held_out/ndcg_shown")),
    ("log-probability, nats a list", ("logps/chosen", "logps/rejected")),
    ("rewards", ("rewards/chosen", "rewards/rejected", "rewards/margins")),
    ("loss", ("loss",)),
    ("preferred as labelled", ("rewards/accuracies", "pairs")),
)


def plot_curves(training: Training, path: Path) -> None:
    """Learning curves; the chosen epoch is dotted. Epoch 0 is the champion."""
    figure, axes = plt.subplots(2, 3, figsize=(10.5, 5.2), layout="constrained")
    for (title, names), axis in zip(PANELS, axes.flat):
        for name in names:
            points = [
                (row["epoch"], row[name]) for row in training.epochs if row.get(name) is not None
            ]
            if points:
                axis.plot(*zip(*points), marker="o", markersize=3, label=name.split("/")[-1])
        axis.axvline(training.best_epoch, color="grey", linewidth=0.8, linestyle=":")
        axis.set_title(title, fontsize=9)
        axis.tick_params(labelsize=7)
        axis.xaxis.get_major_locator().set_params(integer=True)
        if axis.lines[:-1]:
            axis.legend(fontsize=7)
    figure.suptitle(f"Rerank-DPO from the champion: chosen epoch {training.best_epoch} (dotted)")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def plot_differences(evaluation: Evaluation, path: Path) -> None:
    """Forest plot of candidate minus champion: shares of the champion's value."""
    rows: list[tuple[str, float, float, float]] = []
    for result in evaluation.judged.comparison.results:
        if result.method == CANDIDATE and result.difference is not None:
            base = result.value.estimate - result.difference.estimate
            d = result.difference
            rows.append(_row(result.metric, d.estimate, d.low, d.high, base))
    for one in evaluation.off_policy:
        if (
            one.policy == DIFFERENCE
            and one.value is not None
            and one.low is not None
            and one.high is not None
        ):
            name = f"{one.estimator} {one.assumption}{'' if one.usable else ' (not usable)'}"
            rows.append(_row(name, one.value, one.low, one.high, evaluation.logged_value))
    height = 1.2 + 0.28 * len(rows)
    figure, axis = plt.subplots(figsize=(7.5, height), layout="constrained")
    for place, (_, estimate, low, high) in enumerate(reversed(rows)):
        axis.plot([low, high], [place, place], color="tab:blue", linewidth=1.5)
        axis.plot(estimate, place, "o", color="tab:blue", markersize=4)
    axis.set_yticks(range(len(rows)), [row[0] for row in reversed(rows)], fontsize=8)
    axis.axvline(0, color="grey", linewidth=0.8)
    axis.set_xlabel("candidate minus champion, share of the champion's", fontsize=8)
    axis.tick_params(labelsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _row(
    name: str, estimate: float, low: float, high: float, base: float
) -> tuple[str, float, float, float]:
    base = abs(base) or 1.0
    return name, estimate / base, low / base, high / base


def plot_positions(facts: DataFacts, reference: DataFacts | None, path: Path) -> None:
    """Share of U by list position, now and in the reference; and the rates of every kind."""
    figure, axes = plt.subplots(1, 2, figsize=(8.5, 2.8), layout="constrained")
    both = [("these slates", facts)] + ([("reference", reference)] if reference else [])
    for number, (name, one) in enumerate(both):
        _bars(axes[0], number, len(both), list(one.positions), name)
        _bars(axes[1], number, len(both), [one.rates.get(kind, 0.0) for kind in facts.rates], name)
    axes[0].set_title("share of U by list position", fontsize=9)
    axes[0].set_xticks(range(len(facts.positions)), range(1, len(facts.positions) + 1))
    axes[1].set_title("feedback a shown item", fontsize=9)
    axes[1].set_xticks(range(len(facts.rates)), list(facts.rates))
    for axis in axes:
        axis.tick_params(labelsize=7)
        axis.legend(fontsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _bars(axis: Axes, number: int, count: int, values: list[float], name: str) -> None:
    width = 0.8 / count
    axis.bar([x + number * width for x in range(len(values))], values, width, label=name)
