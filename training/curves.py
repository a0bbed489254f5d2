"""Learning curves as one picture."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from training.loop import History


def plot_history(history: History, path: Path, title: str) -> None:
    """One small panel for each scalar over the epochs; the chosen epoch is marked."""
    names = sorted({name for row in history.epochs for name in row} - {"epoch", "seconds"})
    if not names:
        return
    columns = 4
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.2 * columns, 2.2 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    for name, axis in zip(names, axes.flat):
        points = [(row["epoch"], row[name]) for row in history.epochs if name in row]
        axis.plot(*zip(*points), marker="o", markersize=3)
        axis.axvline(history.best_epoch, color="grey", linewidth=0.8, linestyle=":")
        axis.set_title(name, fontsize=9)
        axis.tick_params(labelsize=7)
        axis.xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(f"{title}: chosen epoch {history.best_epoch} (dotted)")
    figure.savefig(path, dpi=110)
    plt.close(figure)
