"""The demo's plot: true clicks of live traffic over time, and of the releases, fresh requests."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from deploy.demo_live import Live


def plot_live(live: Live, file: Path) -> None:
    """Write a PNG; every number in it is simulated and exact."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    FigureCanvasAgg(figure)
    time, fresh = figure.subplots(1, 2, width_ratios=(3, 1))
    labelled: set[str] = set()

    def label(text: str) -> str | None:
        new = text not in labelled
        labelled.add(text)
        return text if new else None

    for name, summary in live.traffic.items():
        if name == "bots":
            continue  # the users are no users
        release = max(summary.releases, key=lambda one: summary.releases[one])
        when = [datetime.fromtimestamp(s.time / 1000, timezone.utc) for s in summary.stretches]
        time.plot(when, [s.given for s in summary.stretches], color="grey",
                  label=label("given order"))  # fmt: skip
        colour = "tab:blue" if release == "r0001" else "tab:green"
        time.plot(when, [s.shown for s in summary.stretches], color=colour, marker=".",
                  label=label(f"{release}, live"))  # fmt: skip
        time.annotate(name, (when[0], 0.02), xycoords=("data", "axes fraction"), fontsize=9)
        time.axvline(when[0], color="lightgrey", linewidth=0.8)  # type: ignore[arg-type]
    time.set_ylabel("true expected clicks a list\n(simulated, exact)")
    time.set_xlabel("event time (UTC)")
    time.tick_params(axis="x", labelrotation=30)
    time.legend()
    bars = {"r0001,\nold tastes" if name == "before" else f"{name},\nnew tastes": judged.gain
            for name, judged in live.judged.items()}  # fmt: skip
    fresh.bar(list(bars), [gain for gain, _ in bars.values()],
              yerr=[half for _, half in bars.values()], capsize=4,
              color=["tab:cyan", "tab:blue", "tab:green"][: len(bars)])  # fmt: skip
    fresh.axhline(0, color="grey")
    fresh.set_title("over the given order,\nfresh requests, 95 %", fontsize=10)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
