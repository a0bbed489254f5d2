"""The picture of ``table.py validate --plot``: position bias, and label rates by day."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from streaming.feedback_table.rates import Rate
from streaming.feedback_table.validation import Validation


def plot_rates(validation: Validation, path: Path) -> None:
    """Write a PNG: left, the rate by position; right, by day. Bars are 95 % intervals.

    Raises:
        OSError: the file cannot be written.
    """
    figure, (places, days) = plt.subplots(1, 2, figsize=(13, 5), layout="constrained")
    try:
        _draw(places, validation.by_position)
        places.set(title="Label rate by position shown", xlabel="position", ylabel="rate")
        _draw(days, validation.by_day)
        days.set(title="Label rate by day (UTC)", xlabel="day", ylabel="rate")
        days.tick_params(axis="x", rotation=60)
        if days.has_data():
            places.legend(title="feedback")
        figure.suptitle(
            f"{validation.rows:,} slates, version {validation.version}. Rates by position mix "
            "attention with relevance: the policy puts the best items first",
            fontsize=10,
        )
        figure.savefig(path, format="png", dpi=110)
    finally:
        plt.close(figure)


def _draw(axes: Axes, rates: tuple[Rate, ...]) -> None:
    names = sorted({rate.of for rate in rates}, key=lambda name: (len(name), name))
    at = {name: index for index, name in enumerate(names)}
    kinds = list(dict.fromkeys(rate.kind for rate in rates))
    for number, kind in enumerate(kinds):
        aside = (number - (len(kinds) - 1) / 2) * 0.08  # bars beside, not over one another
        own = [rate for rate in rates if rate.kind == kind]
        axes.errorbar(
            [at[rate.of] + aside for rate in own],
            [rate.rate for rate in own],
            yerr=[
                [max(rate.rate - rate.low, 0.0) for rate in own],
                [max(rate.high - rate.rate, 0.0) for rate in own],
            ],
            marker="o",
            markersize=3,
            capsize=2,
            label=kind,
        )
    step = max(1, len(names) // 20)
    axes.set_xticks(range(0, len(names), step), names[::step])
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
