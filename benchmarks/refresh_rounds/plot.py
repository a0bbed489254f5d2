"""The plot of benchmarks/refreshes.py: true clicks and reference drift, round by round."""

from __future__ import annotations

from pathlib import Path

from benchmarks.refresh_rounds.findings import Findings


def plot_rounds(findings: Findings, file: Path) -> None:
    """Write a PNG: gains over the given order above, nats from the anchor below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rounds = findings.rounds
    numbers = [one.number for one in rounds]
    figure = Figure(figsize=(8, 7), layout="constrained")
    FigureCanvasAgg(figure)
    gains, drift = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    series = {
        "frozen (never refreshed)": [one.frozen for one in rounds],
        "refreshed champion": [one.refreshed for one in rounds],
        "shown in the round, with exploration": [one.explored for one in rounds],
    }
    for (name, values), style in zip(series.items(), ("--", "-", ":")):
        line = gains.plot(numbers, [v.estimate for v in values], style, marker="o", label=name)
        gains.fill_between(
            numbers,
            [v.low for v in values],
            [v.high for v in values],
            color=line[0].get_color(),
            alpha=0.15,
        )
    refused = [one.number for one in rounds if one.exit_code != 0]
    for at in refused:
        gains.axvline(at, color="grey", linewidth=0.8, linestyle=":")
    gains.axhline(0, color="black", linewidth=0.8)
    gains.set_ylabel("true clicks over the given order\n(simulated, exact, 95 %)")
    world = f"{findings.world}, {findings.lists:,} lists a round"
    gains.set_title(f"{len(rounds)} refreshes on {findings.traffic} traffic ({world})")
    gains.legend()
    drift.plot(numbers, [one.reference_drift for one in rounds], "-", marker="o", color="tab:red")
    drift.set_ylabel("reference drift\n(nats a list from the anchor)")
    drift.set_xlabel("round" + (" (dotted: refused)" if refused else ""))
    drift.set_ylim(bottom=0)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
