"""The demo's plot: live traffic as tastes move, the experiment, and the releases' true clicks."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import matplotlib.dates
from matplotlib.ticker import PercentFormatter

from deploy.demonstration.live import Live


def plot_live(live: Live, file: Path) -> None:
    """Write a PNG; every number in it is simulated and exact."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 5), layout="constrained")
    FigureCanvasAgg(figure)
    time, lift, fresh = figure.subplots(1, 3, width_ratios=(5, 4, 3))
    _plot_traffic(time, live)
    _plot_lift(lift, live)
    bars = {"r0001,\nold tastes" if name == "before" else f"{name},\nnew tastes": judged.gain
            for name, judged in live.judged.items()}  # fmt: skip
    fresh.bar(list(bars), [gain for gain, _ in bars.values()],
              yerr=[half for _, half in bars.values()], capsize=4,
              color=["tab:cyan", "tab:blue", "tab:green"][: len(bars)])  # fmt: skip
    fresh.axhline(0, color="grey")
    fresh.set_title("true clicks over the given order,\nfresh requests, 95 %", fontsize=10)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


def _plot_traffic(axes: Any, live: Live) -> None:
    """True clicks while tastes move, before anybody refreshed anything."""
    for name in ("tastes move", "they have moved"):
        stretches = live.traffic[name].stretches
        when = [datetime.fromtimestamp(s.time / 1000, timezone.utc) for s in stretches]
        axes.plot(when, [s.shown - s.given for s in stretches], color="tab:blue", marker=".")
        axes.annotate(name, (when[0], 0.02), xycoords=("data", "axes fraction"), fontsize=9)
        axes.axvline(when[0], color="lightgrey", linewidth=0.8)
    axes.axhline(0, color="grey")
    axes.set_title("r0001, live", fontsize=10)
    axes.set_ylabel("true clicks a list over the given order (simulated)")
    axes.set_xlabel("event time (UTC)")
    axes.xaxis.set_major_formatter(_clock("%H:%M"))


def _plot_lift(axes: Any, live: Live) -> None:
    """What the experiment saw, look by look, and the truth."""
    axes.set_title("the experiment: clicks against r0001, at any look", fontsize=10)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.axhline(0, color="grey")
    if live.rollouts is None:
        return
    seen = next(one for one in live.rollouts.won.lifts if one.role == "primary").relative
    axes.axhline(live.rollouts.truth, color="tab:green", linestyle="--", label="truth (simulated)")
    if seen is not None:
        points = seen.sequence
        when = [datetime.fromtimestamp(one.time / 1000, timezone.utc) for one in points]
        axes.plot(when, [one.estimate for one in points], color="tab:blue", label="measured")
        axes.fill_between(
            when, [one.low for one in points], [one.high for one in points], alpha=0.2
        )
        reach = max(abs(seen.always_low), abs(seen.always_high), 0.02)  # early looks are wider
        axes.set_ylim(-reach, 2 * reach)
    axes.set_xlabel("time (UTC)")
    axes.xaxis.set_major_formatter(_clock("%H:%M:%S"))
    axes.tick_params(axis="x", labelrotation=30)
    axes.legend()


def _clock(pattern: str) -> Any:
    return matplotlib.dates.DateFormatter(pattern)  # type: ignore[no-untyped-call]
