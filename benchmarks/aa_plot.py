"""The A/A plot: what peeking does to a fixed-horizon test, and what the sequence costs in power."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.aa_repeats import Repeats
from deploy.analysis.power import fixed_power, last_look_power

Floats = npt.NDArray[np.float64]


def plot(
    same: Repeats, other: Repeats, truth: Floats, alpha: float, mde: float, file: Path
) -> None:
    """Write a PNG: shares of the repeats over the looks.

    Args:
        same, other: A/A and A/B. truth: the true lift of ``other`` by look [K].
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    none, some = figure.subplots(1, 2)
    days = np.arange(1, same.p.shape[1] + 1) / 24
    none.plot(days, same.alarms_by_peeking(alpha).mean(axis=0), "tab:red",
              label=f"fixed-horizon test, stopped at the first p < {alpha:g}")  # fmt: skip
    none.plot(days, (same.p < alpha).mean(axis=0), "tab:orange", linewidth=0.8,
              label="fixed-horizon test, that look alone")  # fmt: skip
    none.plot(days, same.alarms_by_sequence().mean(axis=0), "tab:blue",
              label="always-valid sequence, stopped at the first alarm")  # fmt: skip
    none.axhline(alpha, color="grey", linestyle="--", linewidth=0.8, label=f"alpha = {alpha:g}")
    none.set_title(f"No effect: {len(same.p)} A/A tests, looked at every hour", fontsize=10)
    none.set_ylabel("share of experiments with a false alarm")
    none.set_ylim(0, None)
    known = np.isfinite(other.deviation).all(axis=0)
    variance = (other.deviation[:, known] ** 2).mean(axis=0)
    pairs = list(zip(truth[known].tolist(), variance.tolist()))
    some.plot(days, other.alarms_by_sequence().mean(axis=0), "tab:blue",
              label="sequence, by then")  # fmt: skip
    some.plot(days, (np.abs(other.estimate) > other.half).mean(axis=0), "tab:blue", linewidth=0.8,
              linestyle=":", label="sequence, that look alone")  # fmt: skip
    some.plot(days[known], [last_look_power(t, v, mde, alpha) for t, v in pairs], "black",
              linewidth=0.8, label="the same, computed")  # fmt: skip
    some.plot(days, (other.p < alpha).mean(axis=0), "tab:orange", linewidth=0.8, linestyle=":",
              label="fixed-horizon test, that look alone")  # fmt: skip
    some.plot(days[known], [fixed_power(t, v, alpha) for t, v in pairs], "black", linewidth=0.8,
              linestyle="--", label="the same, computed")  # fmt: skip
    some.set_title(f"True lift {truth[-1]:+.1%}: {len(other.p)} A/B tests", fontsize=10)
    some.set_ylabel("share of experiments that show it")
    some.set_ylim(0, 1)
    for axes in (none, some):
        axes.set_xlabel("days (simulated)")
        axes.legend(fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
